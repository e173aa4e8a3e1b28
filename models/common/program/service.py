"""What a kind's service takes and must answer. Travels in every Bento and needs no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from models.common.program.answers import differs

Files = Mapping[str, str]  # field of a form -> the files that it takes, as in HTML: "image/*", ".wav,.flac"


class Predictor(Protocol):
    """A program behind its own preprocessing. Safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one example, 0 for all."""

    @property
    def predict(self) -> Callable[..., dict[str, Any]]:
        """The answer to a form: field -> bytes. Raises BadExampleError where they cannot be used."""


def one_file(field_name: str) -> Callable[[bytes], dict[str, bytes]]:
    """A form of one file, the example itself."""
    return lambda payload: {field_name: payload}


def class_probabilities(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """What a classifier must answer to the example of this row of its score table: the probability of every label.

    Not the label itself: of two that are as good as equal either may come first.
    """
    return {"probabilities": dict(zip(labels, map(float, row["probabilities"]), strict=True))}


@dataclass(frozen=True)
class Service:
    """How a kind is served: `POST /predict` with a form of `fields`, and whatever else its predictor answers.

    predictor: the class of which every worker makes one.
    form: example -> the form that asks about it: field -> file.
    expected: row of the score table, labels -> what must be answered, as far as it is determined.
    differs: how an answer differs from what was expected, in a few words; "" where it agrees.
    extra_endpoints: methods of the predictor, served under their own names -> the fields of their forms.
    """

    predictor: type[Predictor]
    fields: Files
    form: Callable[[bytes], dict[str, bytes]]
    expected: Callable[[Mapping[str, Any], tuple[str, ...]], dict[str, Any]] = class_probabilities
    differs: Callable[[Mapping[str, Any], Mapping[str, Any], float], str] = differs
    fields_optional: bool = False  # any field, but not all of them
    extra_endpoints: Mapping[str, Files] = field(default_factory=dict)
