"""Sections of the report that every classifier shares: how far confidence can be trusted, the worst mistakes."""

from collections.abc import Callable
from html import escape

import pandas as pd

from models.common.classification.metrics import calibration_error, reliability
from models.common.kind import ReportJob
from models.common.reporting import svg
from models.common.reporting.examples import file_names, shown_payloads

SHOWN_MISTAKES = 24


def confidence(job: ReportJob) -> str:
    """Reliability diagram (Niculescu-Mizil & Caruana, ICML 2005): accuracy against confidence; size is examples."""
    frame = svg.Frame(0, 1, 0, 1, width=400, height=340, margins=(14, 20, 36, 46))
    parts = svg.axes(frame, "confidence")
    parts.append(f'<path d="M{frame.x(0)} {frame.y(0)}L{frame.x(1)} {frame.y(1)}" class="mark"/>')
    tables = {"champion": job.champion, "candidate": job.candidate}
    for style, table in tables.items():
        parts += [] if table is None else _dots(frame, table, style)
    parts.append(svg.text(frame.x(0) + 8, frame.y(1) + 12, "accuracy"))
    figure = svg.drawing(frame.width, frame.height, parts, "reliability diagram")
    errors = {style: calibration_error(table) for style, table in tables.items() if table is not None}
    error_texts = [f"<b class={style}>{style}</b> {error:.3f}" for style, error in errors.items()]
    text = (
        "<p>On the dashed line confidence is what it says: of the answers given with confidence 0.8, 8 in 10 are right."
        " Below it the model is too sure of itself. A larger dot stands for more test examples."
        f"</p><p>Calibration error, 15 bins: {', '.join(reversed(error_texts))}.</p>"
    )
    return f'<div class="pair"><div class="figure">{figure}</div><div>{text}</div></div>'


def _dots(frame: svg.Frame, table: pd.DataFrame, style: str) -> list[str]:
    bins = reliability(table)
    spots = [(frame.x(x), frame.y(y)) for x, y in zip(bins["confidence"], bins["accuracy"], strict=True)]
    sizes = 3 + 9 * (bins["examples"] / len(table)) ** 0.5
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="dot {style}"/>'
        for (x, y), size in zip(spots, sizes, strict=True)
    ]


def mistakes(
    job: ReportJob, things: str, card: Callable[[bytes, str, str], str], grid: Callable[[list[str]], str]
) -> str:
    """The wrong answers that were furthest from the truth, each as a `card` of its bytes, caption (HTML) and title.

    things: what the examples are, "pictures".
    """
    wrong = job.candidate[job.candidate["correct"] == 0].nlargest(SHOWN_MISTAKES, "loss")
    if wrong.empty:
        return "<p>None: every test example was answered rightly.</p>"
    payloads = shown_payloads(job, wrong, f"The {len(wrong)} {things}")
    if isinstance(payloads, str):
        return payloads
    right_by_champion = set() if job.champion is None else set(job.champion.loc[job.champion["correct"] == 1, "id"])
    files = file_names(job)
    cards = [
        card(payload, _caption(row, row.id in right_by_champion), f"{files.get(row.id, '')} in {row.batch}")
        for row, payload in zip(wrong.itertuples(), payloads, strict=True)
    ]
    total = int((job.candidate["correct"] == 0).sum())
    text = f"The {len(cards)} of {total:,} wrong answers that were furthest from the truth, the worst first."
    text += " A label that is wrong in the data shows up here, too."
    if job.champion is not None:
        text += " <span class=tag>new</span> marks those that the champion answers rightly."
    return f"<p>{text}</p>{grid(cards)}"


def _caption(row: object, new: bool) -> str:
    truth, prediction = escape(str(getattr(row, "label", ""))), escape(str(getattr(row, "prediction", "")))
    mark = "<span class=tag>new</span>" if new else ""
    return (
        f"<b>{truth}</b> taken for <b>{prediction}</b>"
        f' <span class="soft">{getattr(row, "confidence", 0):.2f}</span> {mark}'
    )
