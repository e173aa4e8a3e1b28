"""A training of a detector made small."""

from pathlib import Path
from typing import Any

from models.common.data.batches import read_manifest
from models.common.kind import TrainJob
from models.object_detection.params import DetectionData, DetectionTrain
from models.object_detection.training import Job

TINY = {"width": 8, "epochs": 2, "batch_size": 8, "learning_rate": 0.003, "warmup_epochs": 0.5, "early_stopping": 0}


def job(root: Path, batches: Path, data: DetectionData, **train: Any) -> Job:
    """A training of a tiny network on `batches` that writes under `root`."""
    return TrainJob(
        model="scenes",
        data=data,
        train=DetectionTrain(**{**TINY, **train}),
        manifest=read_manifest(batches),
        batches=batches,
        out=root / "artifacts" / "scenes",
        home=root / ".ratchet",
        initial=None,
        provenance={"model": "scenes"},
    )
