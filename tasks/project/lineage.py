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


def lineage(tree: Path, made_from: Inputs, candidate: str, champion: Champion | None) -> dict[str, Any]:
    """What the report says about origin; plain values. `champion`: what the data is compared with."""
    now = batches_at(tree, made_from.commit, made_from.model)
    before = batches_at(tree, champion.commit, made_from.model) if champion else []
    return {
        "candidate": candidate,
        "made from commit": made_from.commit,
        "made from": git(tree, "log", "-1", "--format=%h %s (%an, %ad)", "--date=short", made_from.commit),
        "data version": made_from.data_version,
        "batches": now,
        "batches added since the champion": [name for name in now if name not in before] if champion else [],
        "batches removed since the champion": [name for name in before if name not in now],
        "judged against": f"{champion.version} (commit {champion.commit[:10]})" if champion else "nothing: first model",
        "params": models_at(tree, made_from.commit)[made_from.model],
        "fingerprint": made_from.fingerprint,
        "environment": _environment(tree),
        "reproduce": f"ratchet retrain {made_from.model} --revision {made_from.commit[:10]} --force",
    }


def batches_at(root: Path, commit: str, model: str) -> list[str]:
    """Names of a model's batches at a commit."""
    names = git(root, "ls-tree", "--name-only", commit, "--", f"data/{model}/").splitlines()
    return [Path(name).name.removesuffix(".parquet.dvc") for name in names if name.endswith(".parquet.dvc")]


def _environment(tree: Path) -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    locked = tree / "requirements.txt"
    if locked.exists():
        found["requirements.txt"] = f"SHA-256 {hashlib.sha256(locked.read_bytes()).hexdigest()[:12]}"
    return found
