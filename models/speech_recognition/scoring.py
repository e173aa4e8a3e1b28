"""A program's answers to recordings whose transcript is known, one row each, and the metrics computed from them."""

from typing import Any

import numpy as np
import pandas as pd

from models.common.audio.batching import program_inputs
from models.common.audio.cache import sounds
from models.common.data.batches import COMMON_COLUMNS
from models.common.kind import ScoreJob
from models.common.program.program import Program
from models.common.transcripts.alignment import align, edit_counts, edit_distance
from models.common.transcripts.ctc_decoding import Transcript, transcribe
from models.common.transcripts.spelling import Spelling
from models.speech_recognition import COLUMNS
from models.speech_recognition.preprocessing import ProgramInput, remove_padding


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, transcript, prediction (both as the program spells), edits, substitutions, deletions, insertions, words,
    letter_edits, letters, trivial_… (of a model that says nothing), confidence, margin, starts and ends of the
    predicted words (seconds), seconds, split, group, batch,
    row and the manifest's slice columns. UserError when the program cannot be loaded.
    """
    loaded, manifest = Program(job.program), job.manifest
    program_input = ProgramInput.of(loaded.spec.input, job.program)
    spelling = Spelling(program_input.lower_case, program_input.ignored)
    references = [spelling(transcript) for transcript in manifest["label"]]
    pairs = zip(references, _transcripts(job, loaded, program_input), strict=True)
    scored = pd.DataFrame([_row(*pair) for pair in pairs])
    excluded = {*COMMON_COLUMNS, *COLUMNS}
    manifest_columns = [
        str(name) for name in manifest if name in {"split", "group", "batch", "row", "seconds"} or name not in excluded
    ]
    columns = {name: manifest[name].to_numpy() for name in manifest_columns}
    scored.insert(0, "id", manifest["id"].to_numpy())
    return scored.assign(**columns)


def _transcripts(job: ScoreJob, loaded: Program, program_input: ProgramInput) -> list[Transcript]:
    """In the manifest's order; recordings of about one length go through the graph together."""
    recordings = sounds(job.manifest, job.batches, job.home, program_input.sample_rate, program_input.max_seconds)
    order = np.argsort(recordings.lengths, kind="stable")
    transcripts: dict[int, Transcript] = {}
    for start in range(0, len(order), program_input.batch_size):
        rows = order[start : start + program_input.batch_size]
        outputs = loaded.run(**program_inputs(recordings.take(rows)))
        for row, frames in zip(rows, remove_padding(outputs), strict=True):
            transcripts[int(row)] = transcribe(
                frames, loaded.spec.labels, program_input.frame_seconds, program_input.evaluation_beam_width
            )
    return [transcripts[row] for row in range(len(order))]


def _row(reference: str, answer: Transcript) -> dict[str, Any]:
    words = reference.split()
    substitutions, deletions, insertions = edit_counts(align(words, answer.text.split()))
    return {
        "transcript": reference,
        "prediction": answer.text,
        "edits": substitutions + deletions + insertions,
        "words": len(words),
        "trivial_edits": len(words),
        "substitutions": substitutions,
        "deletions": deletions,
        "insertions": insertions,
        "letter_edits": edit_distance(reference, answer.text),
        "letters": len(reference),
        "trivial_letter_edits": len(reference),
        "confidence": answer.confidence,
        "margin": answer.margin,
        "starts": [word.start for word in answer.words],
        "ends": [word.end for word in answer.words],
    }


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:  # noqa: ARG001  # the contract
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
