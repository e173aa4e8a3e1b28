"""Voices as data: which files are examples, what is recorded of each, and what is checked over all of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.common.audio.checks import audio_expectations, inspect_sound
from models.common.audio.decoding import EXTENSIONS
from models.common.data.sources import Source, labelled_files
from models.common.kind import Example, Expectation
from models.speaker_identification.params import SpeakerData

if TYPE_CHECKING:
    import pandas as pd


def examples(source: Source, data: SpeakerData) -> Iterator[Example]:
    """A folder for each speaker, or files beside a metadata file."""
    return labelled_files(source, EXTENSIONS, data.columns)


def inspect(example: Example, data: SpeakerData) -> dict[str, Any]:
    """Length, rate, channels, level, clipping and offset of a recording that decodes whole.

    Raises BadExampleError with the reason.
    """
    return inspect_sound(example.payload, data)


def expectations(data: SpeakerData, manifest: "pd.DataFrame") -> list[Expectation]:
    """All that is checked of recordings, and that voices can be compared. Adds columns to `manifest`."""
    test = manifest["split"] == "test"
    manifest["test_recordings_of_speaker"] = test.groupby(manifest["label"]).transform("sum")
    pairs = Expectation(
        name="every speaker can be verified",
        expectation="ExpectColumnValuesToBeBetween",
        kwargs={"column": "test_recordings_of_speaker", "min_value": 2},
        severity="warn",
        remedy="a speaker with under two test recordings makes no pair of one voice, so the equal error rate says"
        " nothing of it; add some with --split test",
    )
    return [pairs, *audio_expectations(data, manifest)]
