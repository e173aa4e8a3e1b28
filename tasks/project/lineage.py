"""Where a candidate comes from: commit, data, params and environment, and the command that makes it again."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from tasks.project.fingerprint import Inputs, models_at
from tasks.project.registry import Champion
from tasks.project.repository import git

LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "pillow")


def lineage(tree: Path, inputs: Inputs, candidate: str, champion: Champion | None) -> dict[str, Any]:
    """The origin of a candidate, for the report; plain values. `champion`: what the data is compared with."""
    batches = batches_at(tree, inputs.commit, inputs.model)
    champion_batches = batches_at(tree, champion.commit, inputs.model) if champion else []
    return {
        "candidate": candidate,
        "source commit": inputs.commit,
        "source commit summary": git(tree, "log", "-1", "--format=%h %s (%an, %ad)", "--date=short", inputs.commit),
        "data version": inputs.data_version,
        "batches": batches,
        "batches added since the champion": sorted(set(batches) - set(champion_batches)) if champion else [],
        "batches removed since the champion": [name for name in champion_batches if name not in batches],
        "judged against": f"{champion.version} (commit {champion.commit[:10]})" if champion else "nothing: first model",
        "params": models_at(tree, inputs.commit)[inputs.model],
        "fingerprint": inputs.fingerprint,
        "environment": _environment(tree),
        "reproduce": f"ratchet retrain {inputs.model} --revision {inputs.commit[:10]} --force",
    }


def batches_at(root: Path, commit: str, model: str) -> list[str]:
    """Names of a model's batches at a commit."""
    names = git(root, "ls-tree", "--name-only", commit, "--", f"data/{model}/").splitlines()
    return [Path(name).name.removesuffix(".parquet.dvc") for name in names if name.endswith(".parquet.dvc")]


def _environment(tree: Path) -> dict[str, str]:
    environment = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            environment[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    locked = tree / "requirements.txt"
    if locked.exists():
        environment["requirements.txt"] = f"SHA-256 {hashlib.sha256(locked.read_bytes()).hexdigest()[:12]}"
    return environment
