"""Training data for detectors made small: annotated pictures as one batch, without the command that adds."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models import object_detection as kind
from models.common.data.batches import read_manifest
from models.common.data.sources import Source
from models.common.kind import TrainJob

TINY = {"width": 8, "epochs": 2, "batch_size": 8, "learning_rate": 0.003, "warmup_epochs": 0.5, "early_stopping": 0}


def write_batch(folder: Path, name: str, source: Path, data: kind.Data, split: str | None = None) -> None:
    """Every example of the source as the batch `name` in `folder`; each fourth one is for validation."""
    rows: list[dict[str, Any]] = []
    for place, example in enumerate(kind.examples(Source(source), data)):
        digest = hashlib.sha256(example.payload).hexdigest()
        row: dict[str, Any] = {"id": digest, "file_name": example.file_name, "label": None, "group": digest}
        row |= {"split": split or ("val" if place % 4 == 0 else "train"), "source": source.name}
        rows.append(row | kind.inspect(example, data) | {"bytes": example.payload, "target": example.target})
    folder.mkdir(parents=True, exist_ok=True)
    columns = {key: pa.array([row[key] for row in rows], kind.COLUMNS.get(key)) for key in rows[0]}
    table = pa.table(columns)
    pq.write_table(table, folder / f"{name}.parquet")
    pq.write_table(table.drop_columns(["bytes", "target"]), folder / f"{name}.index")
    md5 = hashlib.md5((folder / f"{name}.parquet").read_bytes()).hexdigest()
    (folder / f"{name}.parquet.dvc").write_text(f"outs:\n- md5: {md5}\n  path: {name}.parquet\n")


def job(root: Path, batches: Path, data: kind.Data, **train: Any) -> TrainJob:
    """A training of a tiny network on `batches` that writes under `root`."""
    return TrainJob(
        model="scenes",
        data=data,
        train=kind.Train(**{**TINY, **train}),
        manifest=read_manifest(batches),
        batches=batches,
        out=root / "artifacts" / "scenes",
        home=root / ".ratchet",
        initial=None,
        provenance={"model": "scenes"},
    )
