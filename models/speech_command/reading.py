"""Spoken commands as data: which files are examples, and what is checked over all of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.common.audio.checks import audio_expectations, inspect_sound
from models.common.audio.decoding import EXTENSIONS
from models.common.data.sources import Source, labelled_files
from models.common.kind import Example, Expectation
from models.speech_command.params import CommandData

if TYPE_CHECKING:
    import pandas as pd


def examples(source: Source, data: CommandData) -> Iterator[Example]:
    """A folder for each command, or files beside a metadata file."""
    return labelled_files(source, EXTENSIONS, data.columns)


def inspect(example: Example, data: CommandData) -> dict[str, Any]:
    """Length, rate, channels, level, clipping and offset of a recording that decodes whole.

    Raises BadExampleError with the reason.
    """
    return inspect_sound(example.payload, data)


def expectations(data: CommandData, manifest: "pd.DataFrame") -> list[Expectation]:
    """All that is checked of recordings, and that they fit in a clip. Adds columns to `manifest`."""
    fits_clip = Expectation(
        name="recordings fit in a clip",
        expectation="ExpectColumnValuesToBeBetween",
        kwargs={"column": "seconds", "max_value": data.clip_seconds},
        severity="warn",
        remedy=f"of one longer than clip_seconds ({data.clip_seconds:g} s) only the stretch with the most energy is"
        " heard; see that no word is cut, or raise clip_seconds",
    )
    return [fits_clip, *audio_expectations(data, manifest)]
