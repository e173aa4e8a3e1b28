"""The report's sections on voices: who is taken for whom, how well voices are verified, what they look like apart."""

from html import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.audio.verification import draw_pairs, equal_error_rate, error_curve
from models.common.kind import ReportJob, ReportSection
from models.common.reporting import svg
from models.common.reporting.audio import load_shown, player, sound_card, sound_grid, spectrogram
from models.common.reporting.classification import mistakes
from models.common.reporting.confusion import confusions
from models.common.reporting.examples import shown_payloads

SHOWN_PAIRS = 6
MIN_RATE, MAX_RATE = 0.001, 0.5  # error rates on the axes of the curve
MAX_DOTS = 1_000  # recordings on the map
COLOURS = ("#2563a6", "#b0392c", "#2c7a4b", "#99660a", "#6b4a8f", "#118a8a", "#c0568f", "#5d6673")


def report(job: ReportJob) -> list[ReportSection]:
    """Confusions, error rates, the closest pairs of two speakers, a map of the voices, the worst mistakes."""
    return [
        ReportSection("Confusions", confusions(job)),
        ReportSection("Verification", _verification(job)),
        ReportSection("Closest voices of two speakers", _closest(job)),
        ReportSection("A map of the voices", _map(job)),
        ReportSection("Worst mistakes", mistakes(job, "recordings", sound_card, sound_grid)),
    ]


def _verification(job: ReportJob) -> str:
    """Detection error trade-off (Martin et al., Eurospeech 1997), on logarithmic axes."""
    ends = np.log10([MIN_RATE, MAX_RATE])
    frame = svg.Frame(ends[0], ends[1], ends[0], ends[1], width=400, height=340, margins=(14, 20, 36, 56))
    parts = _rates(frame)
    rate_texts = []
    for style, table in {"champion": job.champion, "candidate": job.candidate}.items():
        if table is not None and _has_pairs(table):
            parts.append(_curve(frame, table, style))
            rate = float(equal_error_rate(table)(np.ones((1, len(table))))[0])
            rate_texts.append(f"<b class={style}>{style}</b> {rate:.2%}")
    if not rate_texts:
        return "<p>The test recordings hold no two of one speaker, or of one speaker only.</p>"
    figure = svg.drawing(frame.width, frame.height, parts, "detection error trade-off")
    text = (
        "<p>How often one voice is taken for two, against how often two are taken for one, for every threshold;"
        " nearer to the lower left is better. On the dashed line both are as frequent.</p>"
        f"<p>Equal error rate: {', '.join(reversed(rate_texts))}, over pairs of test recordings.</p>"
    )
    return f'<div class="pair"><div class="figure">{figure}</div><div>{text}</div></div>'


def _has_pairs(table: pd.DataFrame) -> bool:
    same = draw_pairs(table["label"].to_numpy(object)).same
    return bool(same.any() and not same.all())


def _rates(frame: svg.Frame) -> list[str]:
    low, high = frame.left, frame.right
    parts = [f'<path d="M{frame.x(low)} {frame.y(low)}L{frame.x(high)} {frame.y(high)}" class="mark"/>']
    for rate in (0.001, 0.01, 0.1, 0.5):
        position = float(np.log10(rate))
        parts.append(svg.text(frame.x(frame.left) - 7, frame.y(position) + 4, f"{rate:.1%}", "", "end"))
        parts.append(svg.text(frame.x(position), frame.y(frame.bottom) + 17, f"{rate:.1%}", "", "middle"))
    middle = (frame.x(frame.left) + frame.x(frame.right)) / 2
    parts.append(svg.text(middle, frame.height - 3, "two voices taken for one", "", "middle"))
    return [*parts, svg.text(frame.x(frame.left) + 8, frame.y(frame.top) + 12, "one voice taken for two")]


def _curve(frame: svg.Frame, table: pd.DataFrame, style: str) -> str:
    pairs = draw_pairs(table["label"].to_numpy(object))
    _, rejected, accepted = error_curve(pairs.similarities(_embeddings(table)), pairs.same)
    x_values, y_values = (np.log10(np.clip(rates, MIN_RATE, MAX_RATE)) for rates in (accepted, rejected))
    sampled = np.unique(np.linspace(0, len(x_values) - 1, 400).astype(int))
    points = " ".join(
        f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(x_values[sampled], y_values[sampled], strict=True)
    )
    return f'<polyline points="{points}" class="line {style}"/>'


def _closest(job: ReportJob) -> str:
    """The pairs of two speakers that are most alike, to listen to."""
    table = job.candidate.reset_index(drop=True)
    pairs = draw_pairs(table["label"].to_numpy(object))
    similarity = np.where(pairs.same, -np.inf, pairs.similarities(_embeddings(table)))
    ranked = np.argsort(-similarity)[: min(SHOWN_PAIRS, int((~pairs.same).sum()))]
    if not len(ranked):
        return "<p>The test recordings are of one speaker only.</p>"
    rows = table.iloc[np.concatenate([pairs.first[ranked], pairs.second[ranked]])]
    payloads = shown_payloads(job, rows, "The recordings")
    if isinstance(payloads, str):
        return payloads
    cards = [
        _pair_card(rows.iloc[[position, position + len(ranked)]], payloads[position :: len(ranked)], similarity[number])
        for position, number in enumerate(ranked)
    ]
    return f"<p>Of {int((~pairs.same).sum()):,} pairs, the most alike first.</p>{sound_grid(cards)}"


def _pair_card(rows: pd.DataFrame, payloads: list[bytes], similarity: float) -> str:
    sounds = "".join(spectrogram(samples) + player(samples) for samples in map(load_shown, payloads))
    names = " and ".join(f"<b>{escape(str(label))}</b>" for label in rows["label"])
    return f'<figure>{sounds}<figcaption>{names} <span class="soft">{similarity:.3f}</span></figcaption></figure>'


def _map(job: ReportJob) -> str:
    """Embeddings on their two main axes, a colour for each speaker."""
    table = job.candidate.iloc[:: max(1, len(job.candidate) // MAX_DOTS)]
    flat = _principal_components(_embeddings(table))
    low, high = flat.min(0) - 0.05, flat.max(0) + 0.05
    frame = svg.Frame(low[0], high[0], low[1], high[1], width=520, height=400, margins=(10, 10, 10, 10))
    speakers = {label: index for index, label in enumerate(sorted(set(table["label"])))}
    parts = [
        f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.5" fill="{COLOURS[speakers[label] % len(COLOURS)]}"'
        f' fill-opacity=".7"><title>{escape(label)}</title></circle>'
        for (x, y), label in zip(flat, table["label"].astype(str), strict=True)
    ]
    for label in speakers:
        x, y = np.median(flat[(table["label"] == label).to_numpy()], axis=0)
        parts.append(svg.text(frame.x(x), frame.y(y), str(label), "name", "middle"))
    text = "<p>Embeddings of the test recordings on their two main axes: voices that lie apart are told apart.</p>"
    return f'{text}<div class="figure">{svg.drawing(frame.width, frame.height, parts, "map of voices")}</div>'


def _principal_components(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2): principal components."""
    centred = embeddings - embeddings.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def _embeddings(table: pd.DataFrame) -> NDArray[np.float64]:
    return np.stack(table["embedding"].to_list()).astype(float)
