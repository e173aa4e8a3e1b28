"""The program: `program.onnx` and the `program.json` that says what it takes and gives. Needs no torch.

Evaluation, gate, packaging and service run a model only through this file.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.errors import UserError

TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(int16)": np.int16,
}  # of the graph's inputs
FORMAT = 1  # raise it when program.json changes so that an older reader would misread it


@dataclass(frozen=True)
class ProgramSpec:
    """What travels with the weights.

    labels: the classes in the order of the outputs; of free text, its alphabet.
    input: how raw data becomes the graph's input; its keys are the kind's (images: `size`, `max_pixels`).
    provenance: where it comes from (model, data_version, commit, params, torch version, …).
    """

    kind: str
    labels: tuple[str, ...]
    input: dict[str, Any]
    provenance: dict[str, Any]
    example: dict[str, list[int]] = field(
        default_factory=dict
    )  # shape of a usual input, where the graph leaves it open
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        (folder / "program.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> "ProgramSpec":
        path = folder / "program.json"
        try:
            fields = json.loads(path.read_text())
            if fields.get("format") != FORMAT:
                raise UserError(f"{path} has format {fields.get('format')}; this Ratchet reads format {FORMAT}")
            return ProgramSpec(**{**fields, "labels": tuple(fields["labels"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read as a program's description: {error}") from error


class Program:
    """A loaded program. `run` is safe to call from several threads."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """`threads`: for one operator; 0 lets ONNX Runtime take every core."""
        import onnxruntime

        self.spec = ProgramSpec.load(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "program.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no public base
            raise UserError(f"{folder / 'program.onnx'} cannot be loaded: {error}") from error

    def run(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs the graph on named inputs; gives every output by name. Images: images (N, size, size, 3) uint8
        -> logits (N, classes) float32."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def example_inputs(self) -> dict[str, NDArray[Any]]:
        """Zeros in the shape of one example, to time the graph with; dimensions that are nowhere given are 1."""
        return {
            node.name: np.zeros(
                self.spec.example.get(node.name) or [size if isinstance(size, int) else 1 for size in node.shape],
                TYPES[node.type],
            )
            for node in self._session.get_inputs()
        }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
