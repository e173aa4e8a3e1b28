"""Stage `train`: fine-tunes the model on every batch and exports the program. `python -m tasks.train MODEL`."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from models.common.data.batches import data_version, read_manifest
from models.common.data.held_out import with_validation
from models.common.errors import UserError
from models.common.kind import TrainJob
from tasks.project import command, paths
from tasks.project.params import Model, load_model


def train(root: Path, name: str) -> None:
    """Writes artifacts/<model>/program and artifacts/<model>/training from the params and data under `root`."""
    model = load_model(root, name)
    batches = root / "data" / name
    given = read_manifest(batches)
    manifest = _told(with_validation(given, model.data.splits.val), given)
    job = TrainJob(
        model=name,
        data=model.data,
        train=model.train,
        manifest=manifest,
        batches=batches,
        out=root / "artifacts" / name,
        home=paths.home(root),
        initial=_initial_weights(root, name),
        provenance=_provenance(root, model, manifest),
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read as torch loads; see docs/log.md
    model.kind.train(job)


def _told(manifest: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """The manifest, after a line that says where its validation examples come from when none were given."""
    if manifest is not given:
        count = int((manifest["split"] == "val").sum())
        print(f"no val examples: {count:,} of the training examples (data.splits.val) select the best epoch instead")
    return manifest


def _initial_weights(root: Path, name: str) -> Path | None:
    """The weights file to start from, if any, as the stage initial_weights wrote it."""
    folder = root / "artifacts" / name / "initial_weights"
    if not folder.exists():
        raise UserError(f"{folder} is missing. Make it: dvc repro --single-item initial_weights@{name}")
    path = folder / "weights.pt"
    return path if path.exists() else None


def _provenance(root: Path, model: Model, manifest: pd.DataFrame) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "model": model.name,
        "data_version": data_version(root / "data" / model.name),
        "commit": paths.head(root),
        "examples": {str(split): int(count) for split, count in manifest["split"].value_counts().items()},
        "params": {"data": model.data.model_dump(mode="json"), "train": model.train.model_dump(mode="json")},
        "torch": version("torch"),
    }


if __name__ == "__main__":
    command.run(train)
