"""A program's answers to recordings whose transcript is known, one row each, and the metrics computed from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.common.audio.cache import sounds
from models.common.data.batches import COMMON_COLUMNS
from models.common.errors import UserError
from models.common.program.program import Program
from models.speech_recognition import COLUMNS
from models.speech_recognition.alignment import aligned, counts, distance
from models.speech_recognition.predictor import Answer, heard, run
from models.speech_recognition.text import Spelling

NEEDED = ("sample_rate", "max_seconds", "frame_seconds", "together", "decoder", "beam_width", "lower_case", "ignored")


def score(program: Path, manifest: pd.DataFrame, batches: Path, home: Path) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, transcript, prediction (both as the program spells), edits, substitutions, deletions, insertions, words,
    letter_edits, letters, trivial_… (of a model that says nothing), confidence, margin, starts and ends of the
    predicted words (seconds), seconds, split, group, batch,
    row and the manifest's slice columns. UserError when the program cannot be loaded.
    """
    loaded = Program(program)
    settings = loaded.spec.input
    missing = [key for key in NEEDED if key not in settings]
    if missing:
        raise UserError(f"{program / 'program.json'}: input has no '{missing[0]}', so it is no speech program")
    answers = _answers(loaded, manifest, batches, home)
    spelling = Spelling(bool(settings["lower_case"]), str(settings["ignored"]))
    texts = [spelling(transcript) for transcript in manifest["label"]]
    scored = pd.DataFrame([_row(*pair) for pair in zip(texts, answers, strict=True)])
    own = {*COMMON_COLUMNS, *COLUMNS}
    kept = [str(name) for name in manifest if name in {"split", "group", "batch", "row", "seconds"} or name not in own]
    beside = {name: manifest[name].to_numpy() for name in kept}
    scored.insert(0, "id", manifest["id"].to_numpy())
    return scored.assign(**beside)


def _answers(loaded: Program, manifest: pd.DataFrame, batches: Path, home: Path) -> list[Answer]:
    """In the manifest's order; recordings of about one length go through the graph together."""
    settings = loaded.spec.input
    heard_sounds = sounds(manifest, batches, home, int(settings["sample_rate"]), float(settings["max_seconds"]))
    order = np.argsort(heard_sounds.lengths, kind="stable")
    found: dict[int, Answer] = {}
    step = int(settings["together"])
    for start in range(0, len(order), step):
        places = order[start : start + step]
        for place, frames in zip(places, run(loaded, heard_sounds.take(places)), strict=True):
            found[int(place)] = heard(frames, settings, loaded.spec.labels)
    return [found[place] for place in range(len(order))]


def _row(text: str, answer: Answer) -> dict[str, Any]:
    wanted = text.split()
    pairs = aligned(wanted, answer.text.split())
    substitutions, deletions, insertions = counts(pairs)
    return {
        "transcript": text,
        "prediction": answer.text,
        "edits": substitutions + deletions + insertions,
        "words": len(wanted),
        "trivial_edits": len(wanted),
        "substitutions": substitutions,
        "deletions": deletions,
        "insertions": insertions,
        "letter_edits": distance(text, answer.text),
        "letters": len(text),
        "trivial_letter_edits": len(text),
        "confidence": answer.confidence,
        "margin": answer.margin,
        "starts": [word.start for word in answer.words],
        "ends": [word.end for word in answer.words],
    }


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:  # noqa: ARG001
    """Error rates by word and letter, the kinds of word errors by word, the share of texts without any error."""
    words, letters = max(1, table["words"].sum()), max(1, table["letters"].sum())
    return {
        "word_error_rate": float(table["edits"].sum() / words),
        "character_error_rate": float(table["letter_edits"].sum() / letters),
        "substitution_rate": float(table["substitutions"].sum() / words),
        "deletion_rate": float(table["deletions"].sum() / words),
        "insertion_rate": float(table["insertions"].sum() / words),
        "exact_share": float((table["edits"] == 0).mean()),
    }
