"""What a program costs to run: time, bytes and memory. Needs no torch, so that it measures what a service would need.

python -m models.common.program.cost FOLDER prints the peak memory, in MB, of a process that does nothing but run it.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import models
from models.common.errors import UserError
from models.common.program.program import Program

WARM_UP = 5  # runs
RUNS = 101  # of each program, at most
SECONDS = 3.0  # for all programs together, after which slow ones are not run again
MB = 1_000_000  # bytes
PEAK_MEMORY_FIELD = "VmHWM:"  # Linux: the most memory that this process itself ever held, in KiB


def measure(folders: list[Path]) -> list[dict[str, float]]:
    """latency_ms, size_mb and memory_mb of each program, on this machine. UserError where one cannot be run."""
    rows = zip(folders, latencies_ms(folders), strict=True)
    return [
        {"latency_ms": latency, "size_mb": size_mb(folder), "memory_mb": memory_mb(folder)} for folder, latency in rows
    ]


def latencies_ms(folders: list[Path]) -> list[float]:
    """Median time of one example on one thread, ms. The programs take turns, so a busy moment hits them alike."""
    loaded = [Program(folder, threads=1) for folder in folders]
    examples = [program.example_inputs() for program in loaded]
    for program, example in zip(loaded * WARM_UP, examples * WARM_UP, strict=True):
        program.run(**example)
    times_by_program: list[list[float]] = [[] for _ in loaded]
    end = time.perf_counter() + SECONDS
    while len(times_by_program[0]) < RUNS and (time.perf_counter() < end or len(times_by_program[0]) < 5):
        for program, example, times in zip(loaded, examples, times_by_program, strict=True):
            start = time.perf_counter()
            program.run(**example)
            times.append(1000 * (time.perf_counter() - start))
    return [median(times) for times in times_by_program]


def size_mb(folder: Path) -> float:
    """Of all files of the program."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MB


def memory_mb(folder: Path) -> float:
    """Peak memory of a fresh process that loads the program and runs it."""
    root = Path(models.__file__).parent.parent
    command = [sys.executable, "-m", "models.common.program.cost", str(folder.absolute())]
    process = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise UserError(f"{folder} cannot be run in a process of its own: {lines[-1]}")
    return float(process.stdout)


def peak_mb() -> float:
    """Peak memory of this process. getrusage alone would count what the parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(PEAK_MEMORY_FIELD))
        return int(line.split()[1]) * 1024 / MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak * 1024 / MB  # bytes on macOS, KiB elsewhere


if __name__ == "__main__":
    program = Program(Path(sys.argv[1]), threads=1)
    for _ in range(WARM_UP):
        program.run(**program.example_inputs())
    print(f"{peak_mb():.1f}")
