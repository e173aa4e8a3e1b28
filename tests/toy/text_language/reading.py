"""Texts as data: which files are examples, and what is recorded of each."""

from collections.abc import Iterator
from typing import Any

from models.common.data.sources import Source, labelled_files
from models.common.kind import Example
from models.common.params import DataParams
from models.text_language.preprocessing import letter_shares


def examples(source: Source, data: DataParams) -> Iterator[Example]:
    """A folder of .txt files for each language, or files beside a metadata file."""
    return labelled_files(source, {".txt"}, data.columns)


def inspect(example: Example, data: DataParams) -> dict[str, Any]:
    """How many different letters a text has; BadExampleError where it is none."""
    return {"letters": int((letter_shares(example.payload) > 0).sum())}
