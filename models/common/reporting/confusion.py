"""A section of the report that every classifier shares: what is taken for what."""

from collections import Counter
from html import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.kind import ReportJob
from models.common.reporting import svg

MAX_MATRIX_CLASSES = 100  # classes; of more only the commonest confusions are listed
MAX_NUMBERED_CLASSES = 20  # classes of which each cell of the matrix shows its count
SHOWN_CONFUSIONS = 12


def confusions(job: ReportJob) -> str:
    """Which class is taken for which: a matrix, and the commonest confusions beside it. Of tables with the columns
    label, prediction and correct."""
    wrong = job.candidate[job.candidate["correct"] == 0]
    if wrong.empty:
        return "<p>No test example was mistaken for another class.</p>"
    labels = [label for label in job.labels if label in set(job.candidate["label"]) | set(job.candidate["prediction"])]
    labels += sorted(set(job.candidate["label"]) - set(job.labels))
    if len(labels) > MAX_MATRIX_CLASSES:
        text = f"{len(labels)} classes are too many for a matrix; these are taken for one another most often."
        return f"<p>{text}</p>{_commonest(job)}"
    counts = pd.crosstab(job.candidate["label"], job.candidate["prediction"])
    matrix = counts.reindex(index=labels, columns=labels, fill_value=0).to_numpy()
    layout = "pair top" if len(labels) <= MAX_NUMBERED_CLASSES else ""
    return (
        f'<div class="{layout}"><div class="figure">{_matrix(matrix, labels)}</div><div>{_commonest(job)}</div></div>'
    )


def _matrix(counts: NDArray[np.int64], labels: list[str]) -> str:
    """Rows: the true label. Columns: the prediction. Shaded by the share of the row."""
    cell = max(6.0, min(36.0, 560 / len(labels)))
    with_names = len(labels) <= 60
    left = 16 + (7 * min(16, max(map(len, labels))) if with_names else 0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = []
    for row, column in np.argwhere(counts > 0):
        x, y, kind = left + column * cell, left + row * cell, "hit" if row == column else "miss"
        title = f"{labels[row]} taken for {labels[column]}: {counts[row, column]}"
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}" class="{kind}"'
            f' fill-opacity="{0.12 + 0.88 * shares[row, column] ** 0.5:.2f}"><title>{escape(title)}</title></rect>'
        )
        if len(labels) <= MAX_NUMBERED_CLASSES:
            strong = " on" if shares[row, column] > 0.35 else ""
            parts.append(svg.text(x + cell / 2, y + cell / 2 + 4, f"{counts[row, column]}", f"cell{strong}", "middle"))
    if with_names:
        parts += _names(labels, left, cell)
    edge = left + cell * len(labels)
    return svg.drawing(edge + 4, edge + 4, parts, "confusion matrix: rows are true labels, columns predictions")


def _names(labels: list[str], left: float, cell: float) -> list[str]:
    parts = []
    for index, label in enumerate(labels):
        short = label if len(label) <= 16 else f"{label[:15]}…"
        middle = left + index * cell + cell / 2
        parts.append(svg.text(left - 6, middle + 4, short, "", "end"))
        rotation = f'transform="rotate(-90 {middle + 4:.1f} {left - 6})"'
        parts.append(svg.text(middle + 4, left - 6, short).replace("<text ", f"<text {rotation} "))
    return parts


def _commonest(job: ReportJob) -> str:
    """The pairs most often confused, with the champion's count beside them."""
    pairs = _pairs(job.candidate)[:SHOWN_CONFUSIONS]
    champion_counts = None if job.champion is None else dict(_pairs(job.champion))
    rows = []
    for (label, prediction), count in pairs:
        examples = int((job.candidate["label"] == label).sum())
        champion_cell = (
            "" if champion_counts is None else f'<td class="n">{champion_counts.get((label, prediction), 0)}</td>'
        )
        names = f"<td>{escape(label)}</td><td>{escape(prediction)}</td>"
        rows.append(f'<tr>{names}<td class="n">{count} of {examples}</td>{champion_cell}</tr>')
    head = "<th>is</th><th>taken for</th><th class=n>candidate</th>"
    head += "" if champion_counts is None else "<th class=n>champion</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _pairs(table: pd.DataFrame) -> list[tuple[tuple[str, str], int]]:
    """(true label, prediction) of the wrong answers, and how often, the commonest first."""
    wrong = table[table["correct"] == 0]
    pairs = zip(wrong["label"].astype(str), wrong["prediction"].astype(str), strict=True)
    return Counter(sorted(pairs)).most_common()
