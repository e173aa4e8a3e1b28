"""Near duplicates by 64-bit perceptual hash: two examples whose hashes differ in a few bits are nearly the same."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
MAX_BATCH_PAIRS = 2_000_000  # candidate pairs compared at a time: 16 MB for each array of them
BITS = 64


def find_near_duplicates(hashes: Hashes, others: Hashes, bits: int) -> NDArray[np.int64]:
    """For each of `hashes` the position in `others` of one that differs in at most `bits` bits, or -1.

    Two hashes that differ in at most k bits agree in one of k + 1 bands of bits, whichever bits those are, so only
    pairs that share a band are compared (Manku, Jain & Das Sarma, "Detecting near-duplicates for web crawling", 2007).
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    unique_others, first = np.unique(others, return_index=True)
    positions = np.full(len(unique), -1, np.int64)
    if len(unique) and len(unique_others):
        for left, right in _near_pairs(unique, unique_others, bits):
            positions[left] = first[right]
    return positions[inverse]


def has_earlier_near_duplicate(hashes: Hashes, bits: int) -> NDArray[np.bool_]:
    """For each hash whether one before it differs in at most `bits` bits."""
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    earliest = first.astype(np.int64)
    if len(values):
        for left, right in _near_pairs(values, values, bits):
            np.minimum.at(earliest, left, first[right])
    return earliest[inverse] < np.arange(len(hashes))


def _near_pairs(left: Hashes, right: Hashes, bits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (i, j) of pairs that differ in at most `bits` bits; one that agrees in several bands comes again."""
    edges = np.linspace(0, BITS, bits + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        for i, j in _equal_pairs(_band(left, low, high), _band(right, low, high)):
            near = np.bitwise_count(left[i] ^ right[j]) <= bits
            yield i[near], j[near]


def _band(hashes: Hashes, low: int, high: int) -> Hashes:
    width = high - low
    mask = np.uint64(2**64 - 1) if width == BITS else np.uint64(2**width - 1)
    return (hashes >> np.uint64(low)) & mask


def _equal_pairs(left: Hashes, right: Hashes) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (i, j) of all pairs with left[i] == right[j], some millions at a time."""
    order = np.argsort(right, kind="stable")
    ranked = right[order]
    starts = np.searchsorted(ranked, left, "left")
    counts = np.searchsorted(ranked, left, "right") - starts
    total = np.concatenate([[0], np.cumsum(counts)])
    for begin in range(0, int(total[-1]), MAX_BATCH_PAIRS):
        pair_numbers = np.arange(begin, min(begin + MAX_BATCH_PAIRS, int(total[-1])))  # of the pair, over all of them
        i = np.searchsorted(total, pair_numbers, "right") - 1
        yield i, order[starts[i] + (pair_numbers - total[i])]
