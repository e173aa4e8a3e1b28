"""From a trained network to the program that is shipped, with proof that both say the same."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.common.errors import RatchetError
from models.common.program import Program, ProgramSpec

TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order differ by about 1e-5 of it
OPSET = 18


def export(network: nn.Module, example: torch.Tensor, spec: ProgramSpec, folder: Path, name: str = "images") -> None:
    """Writes program.onnx and program.json: input `name` like `example` with any batch size, output `logits`.

    Uses torch's tracing exporter: about ten times faster than the new one for plain feed-forward networks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "program.onnx"
    with _quiet():
        try:
            torch.onnx.export(
                network.eval(),
                (example,),
                str(target),
                input_names=[name],
                output_names=["logits"],
                dynamic_axes={name: {0: "batch"}, "logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RatchetError(f"{type(network).__name__} cannot be exported to ONNX: {reason}") from error
    spec.save(folder)


def parity(network: nn.Module, folder: Path, inputs: NDArray[np.uint8], name: str = "images") -> float:
    """Largest difference between the network's logits and its program's on real inputs; the program must agree.

    Raises RatchetError where they differ by more than TOLERANCE of the largest logit, or in a clear first choice.
    """
    with torch.inference_mode():
        ours = network.eval()(torch.from_numpy(inputs)).numpy()
    theirs = Program(folder).run(**{name: inputs})["logits"]
    difference = float(np.abs(ours - theirs).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(ours).max()))
    first, second = np.sort(ours, axis=1)[:, -1], np.sort(ours, axis=1)[:, -2]
    clear = first - second > 2 * allowed
    changed = int((ours.argmax(1) != theirs.argmax(1))[clear].sum())
    if not difference <= allowed or changed:
        raise RatchetError(
            f"The exported program differs from the network: logits by up to {difference:.2g} (allowed {allowed:.2g}),"
            f" {changed} of {len(inputs)} answers. It was not kept; report this with the network's name"
        )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither the exporter's notes to its own developers nor its deprecation of itself reach the user."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused attention has no ONNX form
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.getLogger("torch.onnx").setLevel(level)
