"""Decoded examples, kept as memory-mapped arrays, one file per batch: decoding is paid once per batch, ever.

`Decoded` is for examples of one shape (pictures), `Ragged` for those of any length (sounds).

Used by training and by evaluation, so both see the very bytes that the service would make from the same file.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.batches import content_hash, iter_payloads, read_index
from models.common.data.conversion_digest import conversion_digest
from models.common.errors import BadExampleError, UserError

Convert = Callable[[bytes], NDArray[Any]]
CHUNK_SIZE = 16  # examples decoded by one thread at a time: few enough to hold, enough to make its start-up not matter


class Decoded:
    """Rows of a manifest as uint8 arrays; nothing is read before it is asked for."""

    def __init__(self, arrays: dict[str, NDArray[Any]], manifest: pd.DataFrame) -> None:
        self._arrays = list(arrays.values())
        index = {name: position for position, name in enumerate(arrays)}
        self._batch = manifest["batch"].map(index).to_numpy(np.int64)
        self._row = manifest["row"].to_numpy(np.int64)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return tuple(self._arrays[0].shape[1:])

    def take(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """(len(positions), *shape) uint8: those rows of the manifest, by position."""
        if len(self._arrays) == 1:
            return np.asarray(self._arrays[0][self._row[positions]])
        out = np.empty((len(positions), *self.shape), self._arrays[0].dtype)
        batches = self._batch[positions]
        for number in np.unique(batches):
            in_batch = np.flatnonzero(batches == number)
            out[in_batch] = self._arrays[number][self._row[positions[in_batch]]]
        return out


class Ragged:
    """Rows of a manifest as one-dimensional arrays of any length; nothing is read before it is asked for."""

    def __init__(self, arrays: dict[str, tuple[NDArray[Any], NDArray[np.int64]]], manifest: pd.DataFrame) -> None:
        self._values = [values for values, _ in arrays.values()]
        self._ends = [ends for _, ends in arrays.values()]
        index = {name: position for position, name in enumerate(arrays)}
        self._batch = manifest["batch"].map(index).to_numpy(np.int64)
        self._row = manifest["row"].to_numpy(np.int64)
        self.lengths = np.array(
            [self._bounds(position)[1] - self._bounds(position)[0] for position in range(len(self))]
        )

    def __len__(self) -> int:
        return len(self._row)

    def take(self, positions: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Those rows of the manifest, by position; views of the file, not to be written to."""
        return [self[int(position)] for position in positions]

    def __getitem__(self, position: int) -> NDArray[Any]:
        start, end = self._bounds(position)
        return np.asarray(self._values[self._batch[position]][start:end])

    def _bounds(self, position: int) -> tuple[int, int]:
        ends, row = self._ends[self._batch[position]], self._row[position]
        return int(ends[row - 1]) if row else 0, int(ends[row])


def decoded(
    batches: Path,
    manifest: pd.DataFrame,
    home: Path,
    name: str,
    shape: tuple[int, ...],
    convert: Convert,
    column: str = "bytes",
) -> Decoded:
    """The manifest's rows through `convert` (bytes -> uint8 of `shape`); `name` is what a person reads in the cache.

    The cache tells converters apart itself (conversion_digest.py): one that was changed, or is bound to other values,
    converts anew. `column`: what is converted, the bytes or the "target". Raises UserError where `convert` refuses an
    example; a half-written file is never left under its final name.
    """
    names = sorted(set(manifest["batch"]))
    cache = home / "decoded" / f"{name}-{conversion_digest(convert, shape, column)}"
    header = {"descr": "|u1", "fortran_order": False}
    arrays = {}
    for batch in names:
        path = cache / f"{batch}-{content_hash(batches, batch)}.npy"
        with _write_once(path) as partial:
            if partial:
                rows = len(read_index(batches, batch))
                with partial.open("wb") as file:
                    np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *shape)})
                    for array in _converted_rows(batches, batch, convert, column):
                        file.write(array.tobytes())
        arrays[batch] = np.load(path, mmap_mode="r")
    return Decoded(arrays, manifest)


def ragged(
    batches: Path, manifest: pd.DataFrame, home: Path, name: str, convert: Convert, column: str = "bytes"
) -> Ragged:
    """The manifest's rows through `convert` (bytes -> int16 of any length); as `decoded` otherwise."""
    cache = home / "decoded" / f"{name}-{conversion_digest(convert, column)}"
    arrays = {}
    for batch in sorted(set(manifest["batch"])):
        path = cache / f"{batch}-{content_hash(batches, batch)}.i16"
        lengths = []
        with _write_once(path) as partial:
            if partial:
                with partial.open("wb") as file:
                    for array in _converted_rows(batches, batch, convert, column):
                        file.write(array.astype("<i2", copy=False).tobytes())
                        lengths.append(len(array))
                np.save(path.with_suffix(".ends.npy"), np.cumsum(lengths, dtype=np.int64))
        ends = np.load(path.with_suffix(".ends.npy"))
        empty = not len(ends) or not ends[-1]
        arrays[batch] = (np.empty(0, "<i2") if empty else np.memmap(path, "<i2", "r"), ends)
    return Ragged(arrays, manifest)


@contextmanager
def _write_once(path: Path) -> Iterator[Path | None]:
    """Where to write what `path` is to hold, moved there at the end; None where it is there already."""
    if path.exists():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _converted_rows(batches: Path, batch: str, convert: Convert, column: str) -> Iterator[NDArray[Any]]:
    """Each row in order. Whoever writes them does so front to back, not through a memory map: so a full disk is an
    OSError, not the end of the process."""
    row = 0
    for arrays in _convert_in_order(iter_payloads(batches, batch, column), convert):
        for array in arrays:
            if isinstance(array, BadExampleError):
                raise UserError(f"{batch}, row {row}: {array}. Remove it: ratchet remove {batches.name} {batch}")
            yield array
            row += 1


def _convert_in_order(items: Iterable[bytes], convert: Convert) -> Iterator[list[NDArray[Any] | BadExampleError]]:
    """Chunks through `convert` on every core, in order, with no more than two chunks per core in memory."""
    cores = os.cpu_count() or 1
    remaining = iter(items)
    pending: deque[Future[list[NDArray[Any] | BadExampleError]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        while chunk := list(itertools.islice(remaining, CHUNK_SIZE)):
            pending.append(pool.submit(_convert_chunk, convert, chunk))
            if len(pending) > 2 * cores:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _convert_chunk(convert: Convert, chunk: list[bytes]) -> list[NDArray[Any] | BadExampleError]:
    return [_convert_or_error(convert, payload) for payload in chunk]


def _convert_or_error(convert: Convert, payload: bytes) -> NDArray[Any] | BadExampleError:
    try:
        return convert(payload)
    except BadExampleError as error:
        return error
