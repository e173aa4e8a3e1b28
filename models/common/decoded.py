"""Decoded examples, kept as memory-mapped uint8 arrays, one file per batch: decoding is paid once per batch, ever.

Used by training and by evaluation, so both see the very bytes that the service would make from the same file.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from models.common.batches import payloads, read_index
from models.common.errors import BadExampleError, UserError

Convert = Callable[[bytes], NDArray[np.uint8]]
CHUNK = 16  # examples decoded by one thread at a time: few enough to hold, enough to make its start-up not matter


class Decoded:
    """Rows of a manifest as uint8 arrays; nothing is read before it is asked for."""

    def __init__(self, arrays: dict[str, NDArray[np.uint8]], manifest: pd.DataFrame) -> None:
        self._arrays = list(arrays.values())
        number = {name: place for place, name in enumerate(arrays)}
        self._batch = manifest["batch"].map(number).to_numpy(np.int64)
        self._row = manifest["row"].to_numpy(np.int64)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return tuple(self._arrays[0].shape[1:])

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(len(positions), *shape) uint8: those rows of the manifest, by position."""
        if len(self._arrays) == 1:
            return np.asarray(self._arrays[0][self._row[positions]])
        out = np.empty((len(positions), *self.shape), np.uint8)
        batches = self._batch[positions]
        for number in np.unique(batches):
            mine = np.flatnonzero(batches == number)
            out[mine] = self._arrays[number][self._row[positions[mine]]]
        return out


def decoded(
    batches: Path, manifest: pd.DataFrame, home: Path, name: str, shape: tuple[int, ...], convert: Convert
) -> Decoded:
    """The manifest's rows through `convert` (bytes -> uint8 of `shape`); `name` names the conversion in the cache.

    Raises UserError where `convert` refuses an example; a half-written file is never left under its final name.
    """
    names = sorted(set(manifest["batch"]))
    return Decoded(
        {batch: _batch_array(batches, batch, home / "decoded" / name, shape, convert) for batch in names}, manifest
    )


def _batch_array(batches: Path, batch: str, cache: Path, shape: tuple[int, ...], convert: Convert) -> NDArray[np.uint8]:
    path = cache / f"{batch}-{_content(batches, batch)}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _fill(partial, batches, batch, shape, convert)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return array


def _content(batches: Path, batch: str) -> str:
    """Eight hex digits of what is in the batch: another one of the same name gets another cache file."""
    pointer = yaml.safe_load((batches / f"{batch}.parquet.dvc").read_text())
    return str(pointer["outs"][0]["md5"])[:8]


def _fill(path: Path, batches: Path, batch: str, shape: tuple[int, ...], convert: Convert) -> None:
    """Written front to back, not through a memory map: so a full disk is an OSError, not the end of the process."""
    rows = len(read_index(batches, batch))
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        row = 0
        for arrays in _ordered(payloads(batches, batch), convert):
            for array in arrays:
                if isinstance(array, BadExampleError):
                    raise UserError(f"{batch}, row {row}: {array}. Remove it: ratchet remove {batches.name} {batch}")
                file.write(array.tobytes())
                row += 1


def _ordered(items: Iterable[bytes], convert: Convert) -> Iterator[list[NDArray[np.uint8] | BadExampleError]]:
    """Chunks through `convert` on every core, in order, with no more than two chunks per core in memory."""
    cores = os.cpu_count() or 1
    remaining = iter(items)
    waiting: deque[Future[list[NDArray[np.uint8] | BadExampleError]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        while chunk := list(itertools.islice(remaining, CHUNK)):
            waiting.append(pool.submit(_converted, convert, chunk))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _converted(convert: Convert, chunk: list[bytes]) -> list[NDArray[np.uint8] | BadExampleError]:
    return [_attempt(convert, payload) for payload in chunk]


def _attempt(convert: Convert, payload: bytes) -> NDArray[np.uint8] | BadExampleError:
    try:
        return convert(payload)
    except BadExampleError as error:
        return error
