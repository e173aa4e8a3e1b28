"""Where a run that was killed goes on from: `.ratchet/checkpoints/<key>`, outside the worktree that it ran in.

The key is made of everything the result depends on, so a changed param, photo or line of code starts afresh.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from models.common.kind import AnyTrainJob

MAX_KEPT = 8  # interrupted runs whose checkpoints stay; the oldest go first


class Checkpoints:
    """Named states in one folder, each either whole or absent, however the process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replaces the state called `name`. A full disk raises OSError and leaves the state before it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / f"{name}.pt")
        finally:
            partial.unlink(missing_ok=True)

    def load(self, name: str, device: torch.device) -> dict[str, Any] | None:
        """The state called `name`, or None where there is none."""
        path = self.folder / f"{name}.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state

    def clear(self) -> None:
        """Forgets all: the run is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_checkpoints(job: AnyTrainJob, data_version: str) -> Checkpoints:
    """The checkpoints of exactly this training: its params, its data, its starting weights and the code."""
    parent = job.home / "checkpoints"
    key = hashlib.sha256()
    key.update(json.dumps([job.model, job.data.model_dump(), job.train.model_dump()], sort_keys=True).encode())
    key.update(f"{data_version} {torch.__version__} {_code_digest()}".encode())
    if job.initial:
        key.update(job.initial.read_bytes())
    folder = parent / key.hexdigest()[:16]
    _remove_old(parent, folder)
    return Checkpoints(folder)


def _code_digest() -> str:
    root = Path(__file__).resolve().parents[2]  # models/: every kind, which is simpler than the right one
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _remove_old(parent: Path, keep: Path) -> None:
    folders = sorted((path for path in parent.glob("*/") if path != keep), key=lambda path: path.stat().st_mtime)
    for folder in folders[: max(0, len(folders) - MAX_KEPT)]:
        shutil.rmtree(folder, ignore_errors=True)
