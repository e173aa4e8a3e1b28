"""From a trained network to the program that is shipped, checked to give the same outputs."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.common.errors import RatchetError
from models.common.program.program import Program, ProgramSpec

TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order differ by about 1e-5 of it
OPSET = 18


def export(network: nn.Module, example: torch.Tensor, spec: ProgramSpec, folder: Path, name: str = "images") -> None:
    """Writes program.onnx and program.json: input `name` like `example` with any batch size, output `logits`.

    torch's tracing exporter is about ten times faster than its new one; that one is for what the first cannot do.
    Raises RatchetError where neither can.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    write = _export_by_tracing if _pools_evenly(network, example) else _export_by_dynamo
    with _silenced(), _export_errors():
        write(network, example, folder / "program.onnx", name)
    spec.save(folder)


def _pools_evenly(network: nn.Module, example: torch.Tensor) -> bool:
    """Whether every adaptive pooling divides its input evenly: ONNX has no other, the new exporter spells it out."""
    uneven: list[nn.Module] = []

    def check(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if any(before % after for before, after in zip(inputs[0].shape[-2:], output.shape[-2:], strict=True)):
            uneven.append(module)

    pools = [module for module in network.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    hooks = [pool.register_forward_hook(check) for pool in pools]
    with torch.inference_mode():
        network(example)
    for hook in hooks:
        hook.remove()
    return not uneven


def _export_by_tracing(network: nn.Module, example: torch.Tensor, target: Path, name: str) -> None:
    write_graph(network, {name: example}, ("logits",), {name: {0: "batch"}, "logits": {0: "batch"}}, target)


def write_graph(
    network: nn.Module,
    examples: dict[str, torch.Tensor],
    outputs: Sequence[str],
    dynamic_axes: dict[str, dict[int, str]],
    target: Path,
) -> None:
    """The graph of a network with inputs like `examples`, in their order, by torch's tracing exporter.

    `dynamic_axes`: of inputs and outputs, dimension -> its name; the others stay as in the example.
    """
    torch.onnx.export(
        network,
        tuple(examples.values()),
        str(target),
        input_names=list(examples),
        output_names=list(outputs),
        dynamic_axes=dynamic_axes,
        opset_version=OPSET,
        dynamo=False,
    )


def export_graph(
    network: nn.Module,
    examples: dict[str, torch.Tensor],
    outputs: Sequence[str],
    dynamic_axes: dict[str, dict[int, str]],
    spec: ProgramSpec,
    folder: Path,
) -> None:
    """Writes program.onnx and program.json of a network with any inputs and outputs. RatchetError where it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    with _silenced(), _export_errors():
        write_graph(network, examples, outputs, dynamic_axes, folder / "program.onnx")
    spec.save(folder)


@contextmanager
def _export_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the exporters raise whatever they trip over
        reason = " ".join(str(error).split())[:200]
        raise RatchetError(f"The network cannot be exported to ONNX: {reason}") from error


def _export_by_dynamo(network: nn.Module, example: torch.Tensor, target: Path, name: str) -> None:
    torch.onnx.export(
        network,
        (example,),
        str(target),
        input_names=[name],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
    )


def parity(network: nn.Module, folder: Path, inputs: NDArray[Any], name: str = "images") -> float:
    """Largest difference between the network's logits and its program's on real inputs; the program must agree.

    Raises RatchetError where they differ by more than TOLERANCE of the largest logit, or in a clear first choice.
    """
    with torch.inference_mode():
        network_logits = network.eval()(torch.from_numpy(inputs)).numpy()
    program_logits = Program(folder).run(**{name: inputs})["logits"]
    difference = float(np.abs(network_logits - program_logits).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(network_logits).max()))
    first, second = np.sort(network_logits, axis=1)[:, -1], np.sort(network_logits, axis=1)[:, -2]
    clear = first - second > 2 * allowed
    changed = int((network_logits.argmax(1) != program_logits.argmax(1))[clear].sum())
    if not difference <= allowed or changed:
        raise RatchetError(
            f"The exported program differs from the network: logits by up to {difference:.2g} (allowed {allowed:.2g}),"
            f" {changed} of {len(inputs)} answers. It was not kept; report this with the network's name"
        )
    return difference


@contextmanager
def _silenced() -> Iterator[None]:
    """Neither the exporter's notes to its own developers nor its deprecation of itself reach the user.

    Changes the whole process, so it is for the main thread of a training, once nothing else runs in it.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused attention has no ONNX form
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.getLogger("torch.onnx").setLevel(level)
