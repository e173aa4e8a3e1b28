"""Recordings of a training and their speakers, decoded once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.common.audio.batching import pad_batch
from models.common.audio.cache import sounds
from models.common.classification.labels import class_indices
from models.common.data.decoded_cache import Ragged
from models.common.kind import TrainJob
from models.speaker_identification.params import SpeakerData, SpeakerTrain


@dataclass(frozen=True)
class Recordings:
    """Recordings of any length and their speakers, by position."""

    sounds: Ragged
    speakers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sounds)

    def take(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int64]]:
        """(N, T) int16, the rest padding, (N,) how many of each are no padding, (N,) speakers."""
        return *pad_batch(self.sounds.take(positions)), self.speakers[positions]


def recordings(job: TrainJob[SpeakerData, SpeakerTrain], split: str, labels: tuple[str, ...]) -> Recordings:
    """Those of one split. UserError where one does not decode."""
    rows, data = job.rows(split), job.data
    decoded = sounds(rows, job.batches, job.home, data.sample_rate, data.max_seconds)
    return Recordings(decoded, class_indices(rows, labels))
