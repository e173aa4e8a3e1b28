"""The report's sections on transcripts: which words go wrong, whether length matters, the worst with their sounds."""

from collections import Counter
from html import escape

import numpy as np
import pandas as pd

from models.common.kind import ReportJob, ReportSection
from models.common.reporting import svg
from models.common.reporting.audio import SHOWN_SECONDS, sound_card, sound_grid
from models.common.reporting.examples import file_names, shown_payloads
from models.common.transcripts.alignment import Pair, align

SHOWN_WORDS = 15
SHOWN_TEXTS = 12
LENGTH_GROUPS = (1, 3, 5, 8, 12, 20, 40)  # words: where a group of lengths begins
WIDTH = 300  # units of the drawn word times, however wide they are shown


def report(job: ReportJob) -> list[ReportSection]:
    """Words, lengths, and the worst transcripts."""
    return [
        ReportSection("Words that go wrong", _words(job)),
        ReportSection("Errors by length", _lengths(job)),
        ReportSection("Worst transcripts", _worst(job)),
    ]


def _words(job: ReportJob) -> str:
    """The commonest errors, with the champion's count beside them."""
    errors = _errors(job.candidate)
    if not errors:
        return "<p>Every word of every test recording was understood.</p>"
    champion_errors = None if job.champion is None else _errors(job.champion)
    rows = []
    for (reference, hypothesis), count in errors.most_common(SHOWN_WORDS):
        champion_cell = (
            "" if champion_errors is None else f'<td class="n">{champion_errors[reference, hypothesis]}</td>'
        )
        names = f"<td>{_name(reference)}</td><td>{_name(hypothesis)}</td>"
        rows.append(f'<tr>{names}<td class="n">{count}</td>{champion_cell}</tr>')
    head = "<th>was said</th><th>was written</th><th class=n>candidate</th>"
    head += "" if champion_errors is None else "<th class=n>champion</th>"
    kinds = ", ".join(
        f"{int(job.candidate[kind].sum()):,} {kind}" for kind in ("substitutions", "deletions", "insertions")
    )
    text = f"<p>{kinds}, in {int(job.candidate['words'].sum()):,} words. The commonest:</p>"
    return f"{text}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _errors(table: pd.DataFrame) -> Counter[Pair]:
    wrong = table[table["edits"] > 0]
    pairs = [
        pair
        for reference, hypothesis in zip(transcripts(wrong), wrong["prediction"], strict=True)
        for pair in align(reference.split(), hypothesis.split())
    ]
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def transcripts(table: pd.DataFrame) -> list[str]:
    """The transcripts, as text."""
    return [str(text) for text in table["transcript"]]


def _name(word: str | None) -> str:
    return '<span class="soft">nothing</span>' if word is None else escape(word)


def _lengths(job: ReportJob) -> str:
    columns = {"candidate": _by_length(job.candidate)}
    if job.champion is not None:
        columns["champion"] = _by_length(job.champion)
    rows = "".join(
        f'<tr><td>{_range(start)}</td><td class="n">{recordings}</td>'
        + "".join(f'<td class="n">{rates[start][1]:.3f}</td>' for rates in columns.values())
        + "</tr>"
        for start, (recordings, _) in columns["candidate"].items()
    )
    heads = "<th>words</th><th class=n>recordings</th>" + "".join(f"<th class=n>{style}</th>" for style in columns)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<p>Word error rate of transcripts with so many words.</p>{table}"


def _by_length(table: pd.DataFrame) -> dict[int, tuple[int, float]]:
    """Recordings and their word error rate, by the least number of words of the group."""
    starts = np.array(LENGTH_GROUPS)[np.searchsorted(LENGTH_GROUPS, table["words"], side="right") - 1]
    return {
        start: (len(part), float(part["edits"].sum() / part["words"].sum()))
        for start in sorted(set(starts.tolist()))
        if len(part := table[starts == start])
    }


def _range(start: int) -> str:
    index = LENGTH_GROUPS.index(start)
    if index + 1 == len(LENGTH_GROUPS):
        return f"{start} and more"
    last = LENGTH_GROUPS[index + 1] - 1
    return f"{start}" if last == start else f"{start} to {last}"


def _worst(job: ReportJob) -> str:
    wrong = job.candidate[job.candidate["edits"] > 0].assign(rate=lambda table: table["edits"] / table["words"])
    if wrong.empty:
        return "<p>None: every test recording was written down without an error.</p>"
    worst = wrong.sort_values(["edits", "rate"], ascending=False, kind="stable").head(SHOWN_TEXTS)
    payloads = shown_payloads(job, worst, "Their sounds")
    if isinstance(payloads, str):
        texts = [f"<li>{mark_edits(str(row.transcript), str(row.prediction))}</li>" for row in worst.itertuples()]
        return f"<ul>{''.join(texts)}</ul>{payloads}"
    better = set() if job.champion is None else _better_by_champion(job.candidate, job.champion)
    files = file_names(job)
    cards = [
        sound_card(payload, _caption(row, row.id in better), f"{files.get(row.id, '')} in {row.batch}")
        for row, payload in zip(worst.itertuples(), payloads, strict=True)
    ]
    text = f"The {len(cards)} of {len(wrong):,} transcripts with errors that have most of them: <del>deleted</del>,"
    text += " <ins>inserted</ins>, and a word for another as both. Under the sound, when each word was heard."
    if job.champion is not None:
        text += " <span class=tag>new</span> marks those that the champion writes with fewer errors."
    return f"<p>{text}</p>{sound_grid(cards)}"


def _better_by_champion(candidate: pd.DataFrame, champion: pd.DataFrame) -> set[str]:
    both = candidate.merge(champion[["id", "edits"]], on="id", suffixes=("", "_before"))
    return set(both.loc[both["edits_before"] < both["edits"], "id"])


def _caption(row: object, new: bool) -> str:
    transcript, prediction = str(getattr(row, "transcript", "")), str(getattr(row, "prediction", ""))
    starts, ends = list(getattr(row, "starts", ())), list(getattr(row, "ends", ()))
    seconds = min(float(getattr(row, "seconds", 1.0)), SHOWN_SECONDS)
    mark = " <span class=tag>new</span>" if new else ""
    confidence = f'<span class="soft">{getattr(row, "confidence", 0):.2f}</span>'
    return f"{_times(prediction.split(), starts, ends, seconds)}{mark_edits(transcript, prediction)} {confidence}{mark}"


def mark_edits(transcript: str, prediction: str) -> str:
    """The transcript as HTML, what is missing in the prediction struck out, what it has beyond underlined."""
    parts = []
    for reference, hypothesis in align(transcript.split(), prediction.split()):
        if reference == hypothesis:
            parts.append(escape(str(hypothesis)))
        else:
            parts.append("" if reference is None else f"<del>{escape(reference)}</del>")
            parts.append("" if hypothesis is None else f"<ins>{escape(hypothesis)}</ins>")
    return " ".join(part for part in parts if part)


def _times(words: list[str], starts: list[float], ends: list[float], seconds: float) -> str:
    """The words where they were heard, as wide as the spectrogram over them."""
    parts = []
    for word, start, end in zip(words, starts, ends, strict=True):
        left, right = start / seconds * WIDTH, end / seconds * WIDTH
        title = escape(f"{word}, {start:.2f} to {end:.2f} s")
        parts.append(
            f'<rect x="{left:.1f}" y="0" width="{max(2.0, right - left):.1f}" height="4" class="hit">'
            f"<title>{title}</title></rect>{svg.text(left, 15, word)}"
        )
    label = escape(f"word times: {' '.join(words)}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} 20" style="width:100%" role="img" aria-label="{label}">{"".join(parts)}</svg>'
