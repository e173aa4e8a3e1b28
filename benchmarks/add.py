"""`ratchet add` beside `dvc add` of the same folder: time, checkout, one more batch on top of many, memory.

RATCHET_BENCH_PHOTOS sets how many photos the memory row adds (100,000).
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.project.repository import environment

CODE = Path(__file__).resolve().parent.parent
PHOTOS = 10_000
MANY_PHOTOS = int(os.environ.get("RATCHET_BENCH_PHOTOS", "100000"))
ROUNDS = 3
CLASSES = 10
ADD = """
import json, resource, sys
from pathlib import Path
from tasks.add import add
report = add(Path.cwd(), "digits", Path(sys.argv[1]))
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"added": report.added, "peak_mb": peak / 1024}))
"""
CHECKOUT = """
import json, sys, time
from dvc.repo import Repo
repo = Repo(".")
started = time.perf_counter()
repo.checkout(targets=sys.argv[1:])
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


def run() -> list[dict[str, Any]]:
    """Rows for benchmarks/results.md."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        return [*_same_folder(work), *_many(work)]


def _same_folder(work: Path) -> list[dict[str, Any]]:
    source = _photos(work / "photos", PHOTOS, seed=0)
    ours, peers = [], []
    for round in range(ROUNDS):  # taken in turns, so that what else the machine does hits both
        our_project, peer_project = _project(work / f"ours-{round}"), _project(work / f"peer-{round}")
        ours.append(_seconds(our_project, sys.executable, "-c", ADD, str(source)))
        shutil.copytree(source, peer_project / "photos")
        peers.append(_seconds(peer_project, sys.executable, "-m", "dvc", "add", "--quiet", "photos"))
    batch = next((our_project / "data/digits").glob("*.parquet"))
    our_checkout = _checkout(our_project, batch)
    peer_checkout = _checkout(peer_project, peer_project / "photos")
    kind = f"{PHOTOS:,} JPEGs of 32 px"
    return [
        _row(
            f"add {kind}",
            statistics.median(ours),
            statistics.median(peers),
            "at most 2",
            f"whole processes; ours decodes, checks, compares and commits; peer: dvc add FOLDER; median of {ROUNDS}",
        ),
        _row(
            f"check out {kind}",
            our_checkout,
            peer_checkout,
            "at most 0.1",
            "inside DVC, without its start of 1.5 s or more",
        ),
    ]


def _many(work: Path) -> list[dict[str, Any]]:
    few = _photos(work / "few", 1000, seed=1)
    empty = [
        _seconds(_project(work / f"empty-{round}"), sys.executable, "-c", ADD, str(few)) for round in range(ROUNDS)
    ]
    full = _project(work / "full")
    first = json.loads(_call(full, sys.executable, "-c", ADD, str(_photos(work / "many", MANY_PHOTOS, seed=2))))
    _forget_bytes(full)
    on_top = []
    for round in range(ROUNDS):
        copy = Path(shutil.copytree(full, work / f"full-{round}", symlinks=True))
        on_top.append(_seconds(copy, sys.executable, "-c", ADD, str(few)))
    return [
        _row(
            f"add 1,000 more on top of {MANY_PHOTOS:,}, whose bytes are not here",
            statistics.median(on_top),
            statistics.median(empty),
            "about 1",
            f"peer: the same 1,000 into an empty project; median of {ROUNDS}",
        ),
        {
            "benchmark": f"peak memory of adding {MANY_PHOTOS:,}",
            "ours": f"{first['peak_mb']:.0f} MiB",
            "peer": "-",
            "ratio": "-",
            "target": "under 1024 MiB",
            "note": f"JPEGs of 32 px, {first['added']:,} added; the larger of ratchet and the dvc it calls",
        },
    ]


def _forget_bytes(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    for path in (project / "data/digits").glob("*.parquet"):
        path.unlink()


def _photos(folder: Path, count: int, seed: int) -> Path:
    """Smooth coloured noise as JPEG in class folders: about 900 bytes each, no two alike."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / f"class-{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        noise.resize((32, 32), Image.Resampling.BICUBIC).save(path, quality=85)
    return folder


def _project(path: Path) -> Path:
    _call(CODE, "git", "clone", "--quiet", "--depth=1", f"file://{CODE}", str(path))
    _call(path, "git", "config", "user.name", "Benchmark")
    _call(path, "git", "config", "user.email", "benchmark@example.org")
    return path


def _checkout(project: Path, tracked: Path) -> float:
    """Seconds that DVC takes to bring back what is not in the workspace; best of ROUNDS."""
    times: list[float] = []
    for _ in range(ROUNDS):
        shutil.rmtree(tracked) if tracked.is_dir() else tracked.unlink()
        times.append(json.loads(_call(project, sys.executable, "-c", CHECKOUT, f"{tracked}.dvc"))["seconds"])
    return min(times)


def _seconds(cwd: Path, *command: str) -> float:
    started = time.perf_counter()
    _call(cwd, *command)
    return time.perf_counter() - started


def _call(cwd: Path, *command: str) -> str:
    process = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{command[0]} {command[1]} failed: {process.stderr[-500:]}")
    return process.stdout


def _row(benchmark: str, ours: float, peer: float, target: str, note: str) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "ours": f"{ours:.2f} s",
        "peer": f"{peer:.2f} s",
        "ratio": f"{ours / peer:.2f}",
        "target": target,
        "note": note,
    }
