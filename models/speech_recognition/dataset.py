"""Recordings of a manifest, decoded once, and the letters said in them as numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.audio.cache import sounds
from models.common.data.decoded_cache import Ragged
from models.common.errors import UserError
from models.common.transcripts.spelling import Spelling, letters_of
from models.speech_recognition.params import SpeechData


@dataclass(frozen=True)
class Utterances:
    """Recordings and their letters, by position."""

    sounds: Ragged
    letters: list[NDArray[np.int64]]  # places in the alphabet, from 1; 0 is CTC's blank

    def __len__(self) -> int:
        return len(self.sounds)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each."""
        return self.sounds.lengths


def utterances(
    rows: pd.DataFrame, batches: Path, home: Path, data: SpeechData, alphabet: tuple[str, ...]
) -> Utterances:
    """Those of a manifest's rows. UserError where a recording does not decode."""
    index = {letter: position for position, letter in enumerate(alphabet, 1)}
    texts = rows["label"].map(Spelling.of(data))
    letters = [np.array([index[letter] for letter in text if letter in index], np.int64) for text in texts]
    return Utterances(sounds(rows, batches, home, data.sample_rate, data.max_seconds), letters)


def alphabet_of(manifest: pd.DataFrame, data: SpeechData) -> tuple[str, ...]:
    """The letters that are learnt, the space among them; UserError where there is nothing to learn or validate on."""
    texts = manifest.loc[manifest["split"] == "train", "label"].map(Spelling.of(data))
    if texts.empty:
        raise UserError("The training split is empty. Add recordings with transcripts")
    if not (manifest["split"] == "val").any():
        raise UserError(
            "The validation split is empty, so the best epoch cannot be selected."
            " Raise data.splits.val before adding data, or add some with --split val"
        )
    return letters_of(texts) if data.alphabet is None else letters_of([data.alphabet, " "])
