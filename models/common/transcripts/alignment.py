"""Two sequences beside each other with as few edits as can be: word and letter errors, and what a report marks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pair = tuple[str | None, str | None]  # (of the reference, of the hypothesis); None: deleted, inserted


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein distance: the fewest substitutions, deletions and insertions that turn one into the other."""
    return int(_matrix(reference, hypothesis)[-1, -1])


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Pairs in order, with the fewest edits; of several such alignments the one that pairs the most."""
    costs = _matrix(reference, hypothesis)
    row, column = len(reference), len(hypothesis)
    pairs: list[Pair] = []
    while row or column:
        cost = costs[row, column]
        if row and column and cost == costs[row - 1, column - 1] + (reference[row - 1] != hypothesis[column - 1]):
            row, column = row - 1, column - 1
            pairs.append((reference[row], hypothesis[column]))
        elif row and cost == costs[row - 1, column] + 1:
            row -= 1
            pairs.append((reference[row], None))
        else:
            column -= 1
            pairs.append((None, hypothesis[column]))
    return pairs[::-1]


def edit_counts(pairs: Sequence[Pair]) -> tuple[int, int, int]:
    """Substitutions, deletions, insertions."""
    substitutions = sum(None not in pair and pair[0] != pair[1] for pair in pairs)
    deletions = sum(hypothesis is None for _, hypothesis in pairs)
    insertions = sum(reference is None for reference, _ in pairs)
    return substitutions, deletions, insertions


def _matrix(reference: Sequence[str], hypothesis: Sequence[str]) -> NDArray[np.int64]:
    """(R + 1, H + 1) edits between the beginnings; a row at a time, its insertions by a running minimum."""
    index = {item: number for number, item in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    columns = np.array([index[item] for item in hypothesis], np.int64)
    steps = np.arange(len(hypothesis) + 1)
    costs = np.empty((len(reference) + 1, len(hypothesis) + 1), np.int64)
    costs[0] = steps
    for row, item in enumerate(reference, 1):
        best = costs[row - 1] + 1
        best[1:] = np.minimum(best[1:], costs[row - 1, :-1] + (columns != index[item]))
        costs[row] = np.minimum.accumulate(best - steps) + steps
    return costs
