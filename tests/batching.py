"""A delivery as a batch on disk, without the command that adds: for tests of kinds whose truth is a target."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.common.data.sources import Source


def write_batch(kind: Any, folder: Path, name: str, source: Path, data: Any, split: str | None = None) -> None:
    """Every example of the source as the batch `name` in `folder`; each fourth one is for validation."""
    rows: list[dict[str, Any]] = []
    for place, example in enumerate(kind.examples(Source(source), data)):
        digest = hashlib.sha256(example.payload).hexdigest()
        row: dict[str, Any] = {"id": digest, "file_name": example.file_name, "label": None, "group": digest}
        row |= {"split": split or ("val" if place % 4 == 0 else "train"), "source": source.name}
        rows.append(row | kind.inspect(example, data) | {"bytes": example.payload, "target": example.target})
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({key: pa.array([row[key] for row in rows], kind.COLUMNS.get(key)) for key in rows[0]})
    pq.write_table(table, folder / f"{name}.parquet")
    pq.write_table(table.drop_columns(["bytes", "target"]), folder / f"{name}.index")
    md5 = hashlib.md5((folder / f"{name}.parquet").read_bytes()).hexdigest()
    (folder / f"{name}.parquet.dvc").write_text(f"outs:\n- md5: {md5}\n  path: {name}.parquet\n")
