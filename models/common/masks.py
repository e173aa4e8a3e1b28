"""Masks of single objects as run lengths, the way COCO writes them. Needs NumPy alone, so it travels in Bentos.

A mask is read column by column; run lengths of 0 and 1 alternate, 0 first. COCO writes them as a list, or as text:
six bits a character, each length from the fourth on as its difference to the one two before it. Text is read here and
not by pycocotools, whose C code believes whatever a file says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.errors import BadExampleError

MAX_RUNS = 2**22  # of one mask; more would be noise
FIRST = 48  # code of the character that stands for 0
BITS, MORE, SIGN = 5, 0x20, 0x10  # of a character: payload bits, "more follow", the payload's sign


@dataclass(frozen=True)
class Rle:
    """A mask of height x width px as COCO's compressed run lengths."""

    height: int
    width: int
    counts: str

    @property
    def coco(self) -> dict[str, Any]:
        """What COCO JSON holds, and pycocotools takes."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def runs(self) -> NDArray[np.int64]:
        """Lengths of 0s, 1s, 0s, …"""
        return np.array(_runs(self.counts), np.int64)

    @property
    def area(self) -> int:
        """Pixels that are 1."""
        return int(self.runs[1::2].sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in px around all that is 1; zeros where nothing is."""
        rows, columns = (np.flatnonzero(self.array().any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def array(self) -> NDArray[np.bool_]:
        """(height, width)."""
        runs = self.runs
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape(self.width, self.height).T


def encode(mask: NDArray[np.bool_]) -> Rle:
    """Run lengths of a (height, width) mask; the same as pycocotools gives."""
    height, width = mask.shape
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    if flat.size and flat[0]:
        runs = np.concatenate([[0], runs])
    return Rle(height, width, _text(runs.tolist()))


def read_rle(value: Mapping[str, Any]) -> Rle:
    """{"size": [height, width], "counts": list or text} as found in a file. BadExampleError where it is no mask."""
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise BadExampleError(f"mask with the size {str(size)[:40]}; it must be [height, width]")
    if not isinstance(counts, (str, list)) or len(counts) > MAX_RUNS:
        raise BadExampleError("mask whose counts are neither text nor a list of run lengths")
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        raise BadExampleError("mask with a run length that is no whole number from 0 up")
    if sum(runs) != size[0] * size[1]:
        raise BadExampleError(f"mask of {sum(runs)} px; its size says {size[1]} x {size[0]}")
    return Rle(size[0], size[1], _text(runs))


def _text(runs: Sequence[int]) -> str:
    characters = []
    for place, run in enumerate(runs):
        left = run - runs[place - 2] if place > 2 else run
        while True:
            code = left & (MORE - 1)
            left >>= BITS
            more = left != -1 if code & SIGN else left != 0
            characters.append(chr(FIRST + (code | MORE if more else code)))
            if not more:
                break
    return "".join(characters)


def _runs(text: str) -> list[int]:
    """BadExampleError where the text ends within a number or holds other characters."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - FIRST
        if not 0 <= code < 2 * MORE or shift > 60:
            raise BadExampleError("mask whose counts are not COCO's compressed run lengths")
        value |= (code & (MORE - 1)) << shift
        shift += BITS
        if not code & MORE:
            if code & SIGN:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise BadExampleError("mask whose counts end in the middle of a number")
    return runs
