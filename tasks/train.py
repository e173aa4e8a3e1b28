"""Stage `train`: fine-tunes the model on every batch and exports the program. `python -m tasks.train MODEL`."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from models.common.data.batches import data_version, read_manifest
from models.common.data.hashing import unit_interval
from models.common.errors import UserError
from models.common.kind import TrainJob
from tasks.project import command, paths
from tasks.project.params import Model, load_model


def train(root: Path, name: str) -> None:
    """Writes artifacts/<model>/program and artifacts/<model>/training from the params and data under `root`."""
    model = load_model(root, name)
    batches = root / "data" / name
    manifest = with_validation(read_manifest(batches), model.data.splits.val)
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


def with_validation(manifest: pd.DataFrame, share: float) -> pd.DataFrame:
    """The manifest with validation examples: its own, or, where a delivery came as train and test alone, a share of the
    training groups, by a hash of each: the same ones in every run, and as data grows."""
    if share == 0 or (manifest["split"] == "val").any():
        return manifest
    groups = manifest.loc[manifest["split"] == "train", "group"].unique()
    hashes = {group: unit_interval(f"validation {group}") for group in groups}
    held_out = {group for group, value in hashes.items() if value < share}
    if not held_out and len(groups) > 1:
        held_out = {min(groups, key=hashes.__getitem__)}
    chosen = (manifest["split"] == "train") & manifest["group"].isin(held_out)
    count = int(chosen.sum())
    print(f"no val examples: {count:,} of the training examples (data.splits.val) select the best epoch instead")
    return manifest.assign(split=manifest["split"].mask(chosen, "val"))


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
