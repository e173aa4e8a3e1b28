"""Training data made small: handwritten digits as one batch, without the command that adds data."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from models.common.data.batches import read_manifest
from models.common.kind import TrainJob
from models.image_classification.params import ImageData, ImageTrain
from tests.digits import write_digits

TINY = {"network": "small_cnn", "width": 8, "epochs": 2, "batch_size": 32, "learning_rate": 0.01, "warmup_epochs": 0.5}


def write_batch(folder: Path, name: str, files: list[Path]) -> None:
    """Files in class folders as the batch `name` in `folder`; each fourth one is for validation."""
    rows = []
    for index, path in enumerate(files):
        payload = path.read_bytes()
        digest = hashlib.sha256(payload).hexdigest()
        split = "val" if index % 4 == 0 else "train"
        row = {"id": digest, "file_name": path.name, "label": path.parent.name, "split": split, "group": digest}
        with Image.open(path) as picture:
            size = {"width": picture.width, "height": picture.height}
        rows.append({**row, **size, "source": "test", "bytes": payload})
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / f"{name}.parquet")
    pq.write_table(table.drop_columns(["bytes"]), folder / f"{name}.index")
    md5 = hashlib.md5((folder / f"{name}.parquet").read_bytes()).hexdigest()
    (folder / f"{name}.parquet.dvc").write_text(f"outs:\n- md5: {md5}\n  path: {name}.parquet\n")


def digits_batch(folder: Path, count: int = 120, classes: int = 10) -> Path:
    """`data/digits` in `folder` with the first digits of scikit-learn's, of the first few classes alone."""
    photos = write_digits(folder / "photos", 0, count)
    names = sorted(path.name for path in photos.iterdir())[:classes]
    write_batch(folder / "data" / "digits", "a", sorted(path for name in names for path in (photos / name).iterdir()))
    return folder / "data" / "digits"


def digits_job(
    root: Path, batches: Path, data: dict[str, Any] | None = None, **train: Any
) -> TrainJob[ImageData, ImageTrain]:
    """A training of a tiny network on `batches` that writes under `root`."""
    manifest: pd.DataFrame = read_manifest(batches)
    return TrainJob(
        model="digits",
        data=ImageData(**{"image_size": 8, "min_side": 8, **(data or {})}),
        train=ImageTrain(**{**TINY, **train}),
        manifest=manifest,
        batches=batches,
        out=root / "artifacts" / "digits",
        home=root / ".ratchet",
        initial=None,
        provenance={"model": "digits"},
    )
