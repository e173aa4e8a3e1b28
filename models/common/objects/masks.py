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
CHARACTER_OFFSET = 48  # code of the character that stands for 0
BITS_PER_CHARACTER = 5  # that hold the payload
CONTINUE_BIT, SIGN_BIT = 0x20, 0x10  # of a character: more follow; the payload is negative


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
        return np.array(_decode_runs(self.counts), np.int64)

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
    return Rle(height, width, _encode_runs(runs.tolist()))


def from_crop(crop: NDArray[np.bool_], left: int, top: int, height: int, width: int) -> Rle:
    """The mask of height x width px that is `crop` at (left, top) and 0 around it, never held as a whole."""
    rows, columns = crop.shape
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = crop.T
    change = np.diff(padded, axis=1)  # 1 where ones begin, -1 where they end
    offset = (np.arange(columns)[:, None] + left) * height + top
    positions = np.arange(rows + 1) + offset
    begins, ends = positions[change == 1], positions[change == -1]
    separate = begins[1:] != ends[:-1]  # a column that ends at the bottom goes on at the top of the next one
    begins, ends = np.append(begins[:1], begins[1:][separate]), np.append(ends[:-1][separate], ends[-1:])
    edges = np.stack([begins, ends], 1).reshape(-1)
    runs = np.diff(np.concatenate([[0], edges, [height * width]]))
    if len(edges) and edges[-1] == height * width:
        runs = runs[:-1]
    return Rle(height, width, _encode_runs(runs.tolist()))


def paste(
    mask: NDArray[np.float32], box: NDArray[np.float32], width: int, height: int
) -> tuple[NDArray[np.bool_], int, int]:
    """A mask of S x S probabilities drawn into its box x1, y1, x2, y2 in a picture of width x height px.

    Gives the part of the picture whose pixels have their centres in the box, and that part's left and top. A pixel
    takes the probability at its centre, bilinear; beyond the outermost centres of the mask it stays as it is there.
    1 from one half on.
    """
    left, top, right, bottom = (int(edge) for edge in np.ceil(box - 0.5))
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    across = _weights(left, right, float(box[0]), float(box[2]), mask.shape[1])
    down = _weights(top, bottom, float(box[1]), float(box[3]), mask.shape[0])
    return np.asarray(down @ mask @ across.T >= 0.5), left, top


def _weights(first: int, last: int, low: float, high: float, size: int) -> NDArray[np.float32]:
    """(last - first, size): how much of each of `size` cells from low to high the pixels first to last take."""
    positions = (np.arange(first, max(first, last)) + 0.5 - low) * (size / max(high - low, 1e-6)) - 0.5
    positions = np.clip(positions, 0, size - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(size))), np.float32)


Outline = list[tuple[int, int]]


def outlines(crop: NDArray[np.bool_], left: int = 0, top: int = 0) -> list[Outline]:
    """The corners (x, y), in px, of every line around ones; filled by the even-odd rule they are the mask exactly.

    Pixels that touch at a corner only lie in outlines of their own.
    """
    steps = _steps(crop)
    lines = []
    while steps:
        start = next(iter(steps))
        point, heading = start, next(iter(steps[start]))
        line: Outline = []
        while True:
            directions = steps[point]
            direction = _next_direction(heading, directions)
            if not line or direction != heading:
                line.append((point[0] + left, point[1] + top))
            heading = direction
            directions.remove(direction)
            if not directions:
                del steps[point]
            point = point[0] + direction[0], point[1] + direction[1]
            if point == start:
                break
        lines.append(line)
    return lines


def _steps(crop: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Corner of a pixel: the ways to go on from it with a one to the right and a zero to the left."""
    padded = np.pad(crop, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    inside, above, below = padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1]
    before, after = padded[1:-1, :-2], padded[1:-1, 2:]
    sides = (
        (inside & ~above, (0, 0), (1, 0)),
        (inside & ~after, (1, 0), (0, 1)),
        (inside & ~below, (1, 1), (-1, 0)),
        (inside & ~before, (0, 1), (0, -1)),
    )
    for edge, corner, direction in sides:
        for y, x in np.argwhere(edge).tolist():
            steps.setdefault((x + corner[0], y + corner[1]), []).append(direction)
    return steps


def _next_direction(heading: tuple[int, int], directions: list[tuple[int, int]]) -> tuple[int, int]:
    """Where two ways lead on, the one to the right stays with the same pixel."""
    right = (-heading[1], heading[0])
    return right if len(directions) > 1 and right in directions else directions[0]


def read_rle(value: Mapping[str, Any]) -> Rle:
    """{"size": [height, width], "counts": list or text} as found in a file. BadExampleError where it is no mask."""
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise BadExampleError(f"mask with the size {str(size)[:40]}; it must be [height, width]")
    if not isinstance(counts, (str, list)) or len(counts) > MAX_RUNS:
        raise BadExampleError("mask whose counts are neither text nor a list of run lengths")
    runs = _decode_runs(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs):
        raise BadExampleError("mask with a run length that is no whole number from 0 up")
    if sum(runs) != size[0] * size[1]:
        raise BadExampleError(f"mask of {sum(runs)} px; its size says {size[1]} x {size[0]}")
    return Rle(size[0], size[1], _encode_runs(runs))


def _encode_runs(runs: Sequence[int]) -> str:
    characters = []
    for index, run in enumerate(runs):
        remaining = run - runs[index - 2] if index > 2 else run
        while True:
            code = remaining & (CONTINUE_BIT - 1)
            remaining >>= BITS_PER_CHARACTER
            more = remaining != -1 if code & SIGN_BIT else remaining != 0
            characters.append(chr(CHARACTER_OFFSET + (code | CONTINUE_BIT if more else code)))
            if not more:
                break
    return "".join(characters)


def _decode_runs(text: str) -> list[int]:
    """BadExampleError where the text ends within a number or holds other characters."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - CHARACTER_OFFSET
        if not 0 <= code < 2 * CONTINUE_BIT or shift > 60:
            raise BadExampleError("mask whose counts are not COCO's compressed run lengths")
        value |= (code & (CONTINUE_BIT - 1)) << shift
        shift += BITS_PER_CHARACTER
        if not code & CONTINUE_BIT:
            if code & SIGN_BIT:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise BadExampleError("mask whose counts end in the middle of a number")
    return runs
