"""The report's sections on pictures with sound: what each half is worth, what is taken for what, the worst mistakes."""

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

import pandas as pd

from models.audio_visual.preprocessing import PARTS
from models.audio_visual.scoring import summary
from models.common.data.packed_files import unpack
from models.common.kind import ReportJob, ReportSection
from models.common.reporting.audio import load_shown, player, sound_grid, spectrogram
from models.common.reporting.confusion import confusions
from models.common.reporting.examples import file_names, shown_payloads
from models.common.reporting.image import thumbnail

SHOWN_MISTAKES = 12
THUMBNAIL = 160  # px, longer side
INPUTS = {"accuracy": "all that each example has", "accuracy_both": "both, where both are there"} | {
    "accuracy_image_only": "the picture alone",
    "accuracy_audio_only": "the sound alone",
}


def report(job: ReportJob) -> list[ReportSection]:
    """What each half is worth, confusions, and the worst mistakes with their pictures and sounds."""
    alone = [
        ReportSection(f"Confusions with the {word} alone", confusions(_with_part_alone(job, part)))
        for part, word in zip(PARTS, ("picture", "sound"), strict=True)
        if (job.candidate[f"has_{part}"] == 1).any()
    ]
    return [
        ReportSection("What each half is worth", _accuracy_by_part(job)),
        ReportSection("Confusions", confusions(job)),
        *alone,
        ReportSection("Worst mistakes", _mistakes(job)),
    ]


def _with_part_alone(job: ReportJob, part: str) -> ReportJob:
    """The same test with one half of each example, where it has that half."""

    def only(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[table[f"has_{part}"] == 1]
        return rows.assign(prediction=rows[f"prediction_{part}"], correct=rows[f"correct_{part}"])

    champion = None if job.champion is None else only(job.champion)
    return replace(job, candidate=only(job.candidate), champion=champion)


def _accuracy_by_part(job: ReportJob) -> str:
    candidate = summary(job.candidate, job.labels)
    champion = {} if job.champion is None else summary(job.champion, job.labels)
    table = job.candidate
    has = {part: table[f"has_{part}"] == 1 for part in PARTS}
    counts = {
        "accuracy": len(table),
        "accuracy_both": int((has["image"] & has["audio"]).sum()),
        **{f"accuracy_{part}_only": int(has[part].sum()) for part in PARTS},
    }
    rows = []
    for name, inputs in INPUTS.items():
        if name in candidate:
            champion_cell = (
                f'<td class="n">{champion[name]:.3f}</td>' if name in champion else "<td></td>" if champion else ""
            )
            numbers = (
                f'<td class="n"><b>{candidate[name]:.3f}</b></td>{champion_cell}<td class="n">{counts[name]:,}</td>'
            )
            rows.append(f"<tr><td>{inputs}</td>{numbers}</tr>")
    head = "<th>accuracy, given</th><th class=n>candidate</th>"
    head += ("<th class=n>champion</th>" if champion else "") + "<th class=n>test examples</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _mistakes(job: ReportJob) -> str:
    wrong = job.candidate[job.candidate["correct"] == 0].nlargest(SHOWN_MISTAKES, "loss")
    if wrong.empty:
        return "<p>None: every test example was answered rightly.</p>"
    payloads = shown_payloads(job, wrong, f"The {len(wrong)} examples")
    if isinstance(payloads, str):
        return payloads
    files = file_names(job)
    answered = zip(wrong.to_dict("records"), payloads, strict=True)
    cards = [_card(row, payload, files.get(row["id"], "")) for row, payload in answered]
    total = int((job.candidate["correct"] == 0).sum())
    text = f"The {len(cards)} of {total:,} wrong answers that were furthest from the truth, the worst first."
    return f"<p>{text}</p>{sound_grid(cards)}"


def _card(row: Mapping[Any, Any], payload: bytes, file: str) -> str:
    parts = unpack(payload)
    picture = thumbnail(parts["image"], THUMBNAIL) if "image" in parts else ""
    samples = load_shown(parts["audio"]) if "audio" in parts else None
    sound = "" if samples is None else spectrogram(samples) + player(samples)
    alone = "; ".join(
        f"{word}: {escape(str(row[f'prediction_{part}']))}"
        for part, word in zip(PARTS, ("picture alone", "sound alone"), strict=True)
        if row[f"has_{part}"]
    )
    caption = (
        f"<b>{escape(str(row['label']))}</b> taken for <b>{escape(str(row['prediction']))}</b>"
        f' <span class="soft">{float(row["confidence"]):.2f}<br>{alone}</span>'
    )
    title = escape(f"{file} in {row['batch']}", quote=True)
    return f'<figure title="{title}">{picture}{sound}<figcaption>{caption}</figcaption></figure>'
