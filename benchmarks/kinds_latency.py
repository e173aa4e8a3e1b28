"""One example through each kind's program against torch eager, in one process, one thread each.

A kind takes part by having deliveries in tests/samples/<kind>.py: its smallest one is learnt for one epoch, and what is
then handed to the exporter is the peer of what came out of it. Sizes of networks are those of the demo, or of CASES.
"""

import copy
import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from models.common.kind import known_kinds, load_kind
from models.common.program.program import Program
from tests.delivered import job, write_batches

# Kind -> what its demo's section is changed by, so that the network is one that people would serve.
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "image_classification": {"data": {"image_size": 64}, "train": {"network": "resnet18"}},
    "speech_command": {"data": {"sample_rate": 16_000}, "train": {}},
    "speaker_identification": {"data": {"sample_rate": 16_000}, "train": {"network": "bc_resnet", "mels": 60}},
    "audio_visual": {
        "data": {"image_size": 64, "sample_rate": 16_000, "clip_seconds": 1.0},
        "train": {"image_network": "resnet18"},
    },
}
RUNS, WARM_UP = 30, 5
TARGET = 1.5  # times as fast as eager


def run() -> list[dict[str, Any]]:
    """A row for each kind that has deliveries: medians of interleaved runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            kinds = [kind for kind in known_kinds() if importlib.util.find_spec(f"tests.samples.{kind}")]
            return [_row(Path(folder) / kind, kind) for kind in kinds]
    finally:
        torch.set_num_threads(threads)


def _row(root: Path, name: str) -> dict[str, Any]:
    network, inputs, program = _trained(root, name)
    arrays = {key: tensor.numpy() for key, tensor in inputs.items()}

    def eager() -> None:
        with torch.inference_mode():
            network(*inputs.values())

    ours, peer = _medians(lambda: program.run(**arrays), eager)
    shapes = ", ".join("x".join(map(str, array.shape)) for array in arrays.values() if array.ndim > 1)
    rate = program.spec.input.get("sample_rate")
    sounds = [array for array in arrays.values() if array.dtype == np.int16]
    real_time = f"; real-time factor {ours / 1000 / (sounds[0].shape[-1] / rate):.4f}" if rate and sounds else ""
    return {
        "benchmark": name,
        "ours": f"{ours:.2f} ms",
        "peer": f"{peer:.2f} ms",
        "ratio": f"{peer / ours:.2f}",
        "target": f">= {TARGET}",
        "note": f"one example of {shapes}, against torch eager{real_time}",
    }


def _trained(root: Path, name: str) -> tuple[nn.Module, dict[str, torch.Tensor], Program]:
    """A network of the kind as it was exported, real inputs of one example, and the program."""
    kind, sample, case = load_kind(name), importlib.import_module(f"tests.samples.{name}"), CASES.get(name, {})
    data = kind.Data(**{**sample.SECTION["data"], **case.get("data", {})})
    batches = write_batches(root, kind, data, sample.tiny(root / "delivery"))
    one_epoch = {"epochs": 1, "warmup_epochs": 0, "batch_size": 16}
    training = job(root, batches, kind, data, **{**sample.SECTION["train"], **case.get("train", {}), **one_epoch})
    with _watch_export() as exported:
        kind.train(training)
    network, names, tensors = exported[-1]
    program = Program(training.out / "program", threads=1)
    dummy = program.example_inputs()
    inputs = {
        key: tensor[:1] if dummy[key].ndim and dummy[key].shape[0] == 1 else tensor
        for key, tensor in zip(names, tensors, strict=True)
    }
    return network.eval(), inputs, program


@contextmanager
def _watch_export() -> Iterator[list[tuple[nn.Module, list[str], tuple[torch.Tensor, ...]]]]:
    """What is given to torch.onnx.export meanwhile: network, names of its inputs, inputs."""
    exported: list[tuple[nn.Module, list[str], tuple[torch.Tensor, ...]]] = []
    export = torch.onnx.export

    def watched(network: nn.Module, inputs: tuple[torch.Tensor, ...], *rest: Any, **options: Any) -> Any:
        exported.append((copy.deepcopy(network), options["input_names"], inputs))
        return export(network, inputs, *rest, **options)

    with mock.patch("torch.onnx.export", watched):
        yield exported


def _medians(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Medians of both, ms, taking turns, so that a busy moment hits both alike."""
    times_of: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP + RUNS):
        for step, times in zip((ours, peer), times_of, strict=True):
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times_of[0][WARM_UP:]), statistics.median(times_of[1][WARM_UP:])
