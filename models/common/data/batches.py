"""Batches of examples on disk: what `tasks/add.py` writes and everything else reads.

A batch is three files in `data/<model>/`:

    <batch>.parquet        one row per example, its bytes as delivered in the column `bytes`; immutable, kept by DVC
    <batch>.parquet.dvc    DVC's pointer to it, in git
    <batch>.index          the same rows without the bytes, Parquet too, in git: enough to find duplicates, to count
                           and to validate without fetching any old data

Columns of every kind: id (SHA-256 of the bytes, hex), file_name, label, split (train, val, test), group, source;
where the truth is no label (`Kind.TRUTH`): target_id, the SHA-256 of the column `target`, which the index has not;
then the kind's own (`Kind.COLUMNS`), then whatever further columns the source had (strings; they become slices).
A group that nobody gave is null in the file and read as the id: such an example is a group of its own.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from models.common.data.arrow_columns import column
from models.common.data.hashing import version_of_batches
from models.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd  # 1.3 s of processor time, which `add` and a look at the data version do without

COMMON_COLUMNS = ("id", "file_name", "label", "split", "group", "source")
SPLITS = ("train", "val", "test")
ROW_GROUP_SIZE = 256  # rows of a batch read at a time: 256 photos of 4 MB are 1 GiB, the most that is held


def batch_names(folder: Path) -> list[str]:
    """Batches of a model, by their `.dvc` files, in name order."""
    return sorted(path.name.removesuffix(".parquet.dvc") for path in folder.glob("*.parquet.dvc"))


def read_manifest(folder: Path) -> "pd.DataFrame":
    """Every row of every batch in `data/<model>`, without bytes; adds `batch` and `row` (position in the batch).

    Raises UserError where there is no batch or an index is missing.
    """
    import pandas as pd

    names = batch_names(folder)
    if not names:
        raise UserError(f"{folder.name} has no data yet. Add some: ratchet add {folder.name} SOURCE")
    return pd.concat([read_index(folder, name) for name in names], ignore_index=True)


def read_index(folder: Path, batch: str) -> "pd.DataFrame":
    """The rows of one batch, without bytes, with `batch` and `row`."""
    table: pd.DataFrame = pq.read_table(_index(folder, batch)).to_pandas()
    return table.assign(group=table["group"].fillna(table["id"]), batch=batch, row=np.arange(len(table)))


def read_columns(folder: Path, batch: str, columns: Collection[str]) -> pa.Table:
    """Those of `columns` that the batch has, as they are in its index, with `batch`."""
    file = pq.ParquetFile(_index(folder, batch))
    table = file.read([name for name in columns if name in file.schema_arrow.names])
    return table.append_column("batch", column([batch] * len(table), pa.string()))


def _index(folder: Path, batch: str) -> Path:
    path = folder / f"{batch}.index"
    if not path.exists():
        raise UserError(f"{path} is missing beside its .dvc file. Bring it back: git checkout -- {path}")
    return path


def data_version(folder: Path) -> str:
    """Twelve hex digits that name the set of batches, by content and whatever their order."""
    pointers = [yaml.safe_load((folder / f"{name}.parquet.dvc").read_text()) for name in batch_names(folder)]
    return version_of_batches(str(pointer["outs"][0]["md5"]) for pointer in pointers)


def content_hash(folder: Path, batch: str) -> str:
    """Eight hex digits of what is in the batch: another one of the same name gets other files in every cache."""
    pointer = yaml.safe_load((folder / f"{batch}.parquet.dvc").read_text())
    return str(pointer["outs"][0]["md5"])[:8]


def iter_payloads(folder: Path, batch: str, column: str = "bytes") -> Iterator[bytes]:
    """Each example's bytes, in row order, read ROW_GROUP_SIZE rows at a time; or its targets ("target")."""
    path = folder / f"{batch}.parquet"
    if not path.exists():
        raise UserError(f"{path} is not here. Fetch it: dvc pull {path}.dvc")
    for chunk in pq.ParquetFile(path).iter_batches(batch_size=ROW_GROUP_SIZE, columns=[column]):
        for value in chunk.column(0):
            yield value.as_py()


def read_payloads(folder: Path, rows: "pd.DataFrame", column: str = "bytes") -> list[bytes]:
    """The bytes (or targets) of a few rows of a manifest, in their order. For showing examples, not whole batches."""
    values_by_row: dict[tuple[str, int], bytes] = {}
    for batch, batch_rows in rows.groupby("batch"):
        file = pq.ParquetFile(folder / f"{batch}.parquet")
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            rows_in_group = [row for row in batch_rows["row"] if start <= row < start + size]
            if rows_in_group:
                values = file.read_row_group(group, columns=[column]).column(0)
                values_by_row |= {(str(batch), row): values[row - start].as_py() for row in rows_in_group}
            start += size
    return [values_by_row[str(batch), row] for batch, row in zip(rows["batch"], rows["row"], strict=True)]
