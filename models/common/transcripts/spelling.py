"""Transcripts as text that is learnt: one spelling of what is the same to the ear, and the alphabet that it takes.

Travels in Bentos: needs nothing.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

APOSTROPHES = "\u2019\u02bc\u2018\u00b4`"  # what writers and word processors put for '
SPACE = " "


@dataclass(frozen=True)
class Spelling:
    """How a transcript is normalised; travels in program.json, so that evaluation reads it as training did."""

    lower_case: bool
    ignored: str  # each of these characters is read as a space

    def __call__(self, transcript: str) -> str:
        """NFC, one kind of apostrophe, the ignored marks and runs of white space as single spaces."""
        text = unicodedata.normalize("NFC", transcript)
        text = text.translate({ord(mark): "'" for mark in APOSTROPHES} | {ord(mark): SPACE for mark in self.ignored})
        return SPACE.join((text.lower() if self.lower_case else text).split())

    @staticmethod
    def of(data: Any) -> "Spelling":
        """The spelling that a `data` section asks for."""
        return Spelling(data.lower_case, data.ignored)


def letters_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Every letter that occurs, the space among them, in the order of their code points."""
    return tuple(sorted(set().union(*texts)))


def unknown_letters(text: str, alphabet: Iterable[str]) -> str:
    """The letters of `text` that are neither in the alphabet nor a space, each once, in their order."""
    return "".join(dict.fromkeys(letter for letter in text if letter != SPACE and letter not in set(alphabet)))
