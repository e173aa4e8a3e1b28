"""Decoded examples, kept as memory-mapped uint8 arrays, one file per batch: decoding is paid once per batch, ever.

Used by training and by evaluation, so both see the very bytes that the service would make from the same file.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.batches import payloads, read_index

Convert = Callable[[bytes], NDArray[np.uint8]]


class Decoded:
    """Rows of a manifest as uint8 arrays; nothing is read before it is asked for."""

    def __init__(self, arrays: dict[str, NDArray[np.uint8]], manifest: pd.DataFrame) -> None:
        self._arrays = arrays
        self._batch = manifest["batch"].to_numpy()
        self._row = manifest["row"].to_numpy()

    def __len__(self) -> int:
        return len(self._row)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(len(positions), *shape) uint8: those rows of the manifest, by position."""
        first = next(iter(self._arrays.values()))
        out = np.empty((len(positions), *first.shape[1:]), np.uint8)
        batches = self._batch[positions]
        for name, array in self._arrays.items():
            mine = np.flatnonzero(batches == name)
            if len(mine):
                out[mine] = array[self._row[positions[mine]]]
        return out


def decoded(
    batches: Path, manifest: pd.DataFrame, home: Path, name: str, shape: tuple[int, ...], convert: Convert
) -> Decoded:
    """The manifest's rows through `convert` (bytes -> uint8 of `shape`); `name` names the conversion in the cache.

    Raises whatever `convert` raises; a half-written cache file is never left under its final name.
    """
    names = sorted(set(manifest["batch"]))
    return Decoded({batch: _batch_array(batches, batch, home, name, shape, convert) for batch in names}, manifest)


def _batch_array(
    batches: Path, batch: str, home: Path, name: str, shape: tuple[int, ...], convert: Convert
) -> NDArray[np.uint8]:
    path = home / "decoded" / name / f"{batch}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _fill(partial, len(read_index(batches, batch)), shape, payloads(batches, batch), convert)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _fill(path: Path, rows: int, shape: tuple[int, ...], items: Iterable[bytes], convert: Convert) -> None:
    out: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, *shape))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, array in enumerate(pool.map(convert, items)):
            out[row] = array
    out.flush()
