"""Every benchmark beside its peer: `make bench`, or `python -m benchmarks NAME…`. Writes benchmarks/results.md.

STORIES run on data that is not in the repository, each by a command of its own: python -m benchmarks.fsdd FOLDER.
"""

import importlib
import os
import pkgutil
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import benchmarks

STORIES = ("audio_visual", "bccd", "camvid", "cifar10", "connected_digits", "fsdd", "more_data", "soak", "speakers")
RESULTS = Path(__file__).parent / "results.md"
HEADER = """# Benchmarks

Made by `make bench`; each ratio is one run of ours and its peer side by side on one machine, medians.

"""


def main(names: list[str]) -> None:
    """Runs the named benchmarks, or all of them, and rewrites their sections of the results."""
    known = sorted({module.name for module in pkgutil.iter_modules(benchmarks.__path__)} - {"__main__", *STORIES})
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"error: no benchmark '{unknown[0]}'. There are: {', '.join(known)}")
    sections = _read()
    for name in names or known:
        print(f"{name} …", flush=True)
        sections[name] = _section(name, importlib.import_module(f"benchmarks.{name}").run())
        print(sections[name], flush=True)
        RESULTS.write_text(HEADER + "\n".join(sections[key] for key in sorted(sections)))


def _read() -> dict[str, str]:
    if not RESULTS.exists():
        return {}
    parts = RESULTS.read_text().split("\n## ")[1:]
    return {part.split("\n", 1)[0]: "## " + part.rstrip() + "\n" for part in parts}


def _section(name: str, rows: list[dict[str, Any]]) -> str:
    lines = ["| what | ours | peer | ratio | target | note |", "|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(str(row[key]) for key in _COLUMNS)} |" for row in rows]
    return f"## {name}\n\n" + "\n".join(lines) + f"\n\n{_machine()}\n"


_COLUMNS = ("benchmark", "ours", "peer", "ratio", "target", "note")


def _machine() -> str:
    names = ("torch", "torchvision", "dvc", "prefect", "onnxruntime")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{date.today()}, {cores}, Python {platform.python_version()}, {packages}."


if __name__ == "__main__":
    main(sys.argv[1:])
