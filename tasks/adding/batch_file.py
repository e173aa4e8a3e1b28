"""Writes one batch: a Parquet file with the bytes, and its index, the same rows without them."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.common.data.arrow_columns import column, empty
from models.common.data.batches import COMMON_COLUMNS, ROW_GROUP_SIZE

MAX_BUFFER_BYTES = 32 * 2**20  # bytes of examples held before they are written as a row group


class BatchFile:
    """Writes a Parquet file. Bytes are stored uncompressed (photos do not shrink), other columns as Zstandard."""

    def __init__(
        self, path: Path, columns: Mapping[str, str], extra: Collection[str], source: str, targets: bool
    ) -> None:
        """`columns`: the kind's own, name -> pyarrow type; `extra`: further text columns; `source`: its name;
        `targets`: whether each row has one."""
        fields = [(name, pa.string()) for name in COMMON_COLUMNS]
        fields += [("target_id", pa.string())] if targets else []
        fields += [(name, getattr(pa, kind)()) for name, kind in columns.items()]
        fields += [(name, pa.string()) for name in sorted(extra)]
        self._index_schema = pa.schema(fields)
        self._payload_columns = ["bytes", *(["target"] if targets else [])]
        self._schema = pa.schema(
            [*self._index_schema, *(pa.field(name, pa.binary()) for name in self._payload_columns)]
        )
        self._path, self._source = path, source
        self._buffer: list[dict[str, Any]] = []
        self._buffered_bytes = 0
        self._tables: list[pa.Table] = []
        self._writer = self._open(path)

    def _open(self, path: Path) -> pq.ParquetWriter:
        compression = {name: "NONE" if name == "bytes" else "ZSTD" for name in self._schema.names}
        return pq.ParquetWriter(
            path,
            self._schema,
            compression=compression,
            use_dictionary=["label", "split", "source"],
            write_statistics=False,
        )

    def append(self, row: dict[str, Any]) -> None:
        """One row: every column by name but `source`; a further column that is missing is null."""
        self._buffer.append({**row, "source": self._source})
        self._buffered_bytes += sum(len(row[name]) for name in self._payload_columns)
        if len(self._buffer) == ROW_GROUP_SIZE or self._buffered_bytes > MAX_BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            columns = [column([row.get(field.name) for row in self._buffer], field.type) for field in self._schema]
            table = pa.Table.from_arrays(columns, schema=self._schema)
            self._writer.write_table(table)
            self._tables.append(table.drop_columns(self._payload_columns))
        self._buffer, self._buffered_bytes = [], 0

    def finish(self, dropped: Collection[int]) -> pa.Table:
        """Ends the file, without the rows whose positions are in `dropped`; gives its rows without bytes."""
        self._flush()
        self._writer.close()
        index = pa.concat_tables(self._tables) if self._tables else empty(self._index_schema)
        if dropped:
            keep = column([row not in dropped for row in range(len(index))], pa.bool_())
            self._rewrite(keep)
            index = index.filter(keep)
        return index

    def _rewrite(self, keep: pa.Array) -> None:
        unfiltered = self._path.with_suffix(".all")
        self._path.replace(unfiltered)
        start = 0
        with self._open(self._path) as writer:
            for chunk in pq.ParquetFile(unfiltered).iter_batches(batch_size=ROW_GROUP_SIZE):
                writer.write_table(pa.Table.from_batches([chunk]).filter(keep.slice(start, len(chunk))))
                start += len(chunk)
        unfiltered.unlink()

    def close(self) -> None:
        """Closes the file, finished or not."""
        self._writer.close()


def write_index(index: pa.Table, path: Path) -> None:
    """The rows without bytes; the same rows always give the same file, so two clones never conflict over it."""
    pq.write_table(index, path, compression="ZSTD", use_dictionary=["label", "split", "source"], write_statistics=False)


def content_hash(index: pa.Table) -> str:
    """Eight hex digits of a hash of the rows: the same examples, labels and splits have the same name anywhere."""
    identifying = [name for name in ("id", "label", "split", "group", "target_id") if name in index.column_names]
    rows = index.select(identifying).to_pylist()
    text = "\n".join("\t".join(str(value) for value in row.values()) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
