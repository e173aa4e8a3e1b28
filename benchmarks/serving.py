"""Answering one picture: the program against torch eager, alone and behind the whole service. One core each."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from models.common.backbones.classifiers import Backbone
from models.common.image.decoding import decode, open_image
from models.common.image.normalisation import Normalised
from models.common.program.export import export
from models.common.program.program import Program, ProgramSpec
from tasks.package import package
from tasks.serve import free_port, running, unpack
from tests.digits import write_digits
from tests.linear import MAX_PIXELS, write_candidate

CASES = {
    "small_cnn, 32 px": ("small_cnn", 32),
    "resnet18, 64 px": ("resnet18", 64),
    "resnet18, 224 px": ("resnet18", 224),
}
SERVED = "resnet18, 224 px"
RUNS = 35
PARAMS = """\
models:
  photos:
    kind: image_classification
    data: {image_size: 224}
    train: {network: resnet18}
    gate: {}
"""


def run() -> list[dict[str, Any]]:
    """Rows of ours against torch eager in this process, on one thread, medians of interleaved runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = [_alone(Path(folder), name, *case) for name, case in CASES.items()]
            return [*rows, *_served(Path(folder) / "project", *CASES[SERVED])]
    finally:
        torch.set_num_threads(threads)


def _network(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    return Normalised(Backbone(name, size).build(10)).eval()


def _export(network: nn.Module, folder: Path, pixels: NDArray[np.uint8], *_: object) -> None:
    spec = ProgramSpec("image_classification", (), {}, {})
    export(network, torch.from_numpy(pixels[:2]), spec, folder)


def _alone(work: Path, title: str, name: str, size: int) -> dict[str, Any]:
    network, folder = _network(name, size), work / title
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    _export(network, folder, pixels)
    program = Program(folder, threads=1)
    ours, peer = _medians(lambda: program.run(images=pixels[:1]), partial(_eager, network, pixels[:1]))
    return _row(f"program, {title}", ours, peer, ">= 1.5", "one picture, in process, against torch eager")


def _served(root: Path, name: str, size: int) -> list[dict[str, Any]]:
    import httpx

    network, photo = _network(name, size), _photo()
    root.mkdir()
    (root / "params.yaml").write_text(PARAMS)
    digits = write_digits(root / "digits", 0, 60)
    write_candidate(root, "photos", digits, size, partial(_export, network))
    report = package(root, "photos", "v1.0.0")
    port = free_port()
    with (
        running(unpack(report.bento, root / "bentos"), "127.0.0.1", port, log=root / "log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        request = partial(client.post, "/predict", files={"image": ("photo.jpg", photo)})
        ours, peer = _medians(request, lambda: _eager(network, _pixels(photo, size)))
        http_only, _ = _medians(partial(client.get, "/livez"), lambda: None)
    note = "HTTP request to answer, with form, JPEG decoding and log, against decoding and torch eager in process"
    overhead = (
        f"of it HTTP alone {http_only:.1f} ms; Bento {report.size_mb:.1f} MB, ready in {report.start_seconds:.1f} s"
    )
    return [_row(f"served, {name}, {size} px", ours, peer, ">= 1", f"{note}; {overhead}")]


def _photo() -> bytes:
    noise = Image.effect_noise((40, 30), 80).resize((640, 480), Image.Resampling.BICUBIC).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=90)
    return file.getvalue()


def _pixels(photo: bytes, size: int) -> NDArray[np.uint8]:
    return decode(open_image(photo, MAX_PIXELS), size)[None]


def _eager(network: nn.Module, pixels: NDArray[np.uint8]) -> object:
    with torch.inference_mode():
        return network(torch.from_numpy(pixels.copy())).numpy()


def _medians(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Medians of both, ms, taking turns, so that a busy moment hits both alike."""
    times_of: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for step, times in zip((ours, peer), times_of, strict=True):
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times_of[0][5:]), statistics.median(times_of[1][5:])


def _row(benchmark: str, ours: float, peer: float, target: str, note: str) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "ours": f"{ours:.2f} ms",
        "peer": f"{peer:.2f} ms",
        "ratio": f"{peer / ours:.2f}",
        "target": target,
        "note": note,
    }
