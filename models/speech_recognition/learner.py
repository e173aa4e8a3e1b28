"""What learns to write down what is said: features, network, CTC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.audio.augmentation import louder, masked, noisy, stretched
from models.common.audio.mel import LogMel
from models.common.data.decoded_cache import Ragged
from models.common.training.freezing import Group
from models.speech_recognition import decoding
from models.speech_recognition.alignment import distance
from models.speech_recognition.params import SpeechTrain

FULL_SCALE = 32768


class Recogniser(nn.Module):
    """A network with its preprocessing: samples (N, T) int16 and how many of each are no padding -> log probabilities
    of the letters by frame. This is what is exported."""

    def __init__(self, network: nn.Module, mel: LogMel | None) -> None:
        """`mel`: None for a network that takes the samples themselves."""
        super().__init__()
        self.network, self.mel = network, mel

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F, 1 + letters) float32 log probabilities, the blank first; (N,) frames of each."""
        return self.answered(*self.features(samples.float() / FULL_SCALE, lengths))

    def features(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the network takes, of waves (N, T) of full scale 1, and how long that is."""
        if self.mel is None:
            return waves, lengths
        return self.mel(waves, lengths), self.mel.frames(lengths)

    def answered(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities in fp32, also under autocast: CTC adds up hundreds of them."""
        logits, frames = self.network(features, lengths)
        return F.log_softmax(logits.float(), dim=2), frames


@dataclass(frozen=True)
class Batch:
    """Sounds padded to one length, and their letters."""

    samples: Tensor  # (N, T) int16
    lengths: Tensor  # (N,) int64
    letters: Tensor  # (N, L) int64, padded with the blank
    counts: Tensor  # (N,) int64


class Utterances:
    """Sounds and the letters said in them, by position."""

    def __init__(self, sounds: Ragged, letters: list[NDArray[np.int64]], device: torch.device) -> None:
        self.letters = letters
        self._sounds, self._device = sounds, device

    def __len__(self) -> int:
        return len(self._sounds)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each."""
        return self._sounds.lengths

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those, on the device."""
        sounds = self._sounds.take(positions)
        letters = [self.letters[place] for place in positions]
        fields = padded(sounds, np.int16), _lengths(sounds), padded(letters, np.int64), _lengths(letters)
        if self._device.type == "cuda":
            return Batch(*(field.pin_memory().to(self._device, non_blocking=True) for field in fields))
        return Batch(*fields)


def padded(rows: Sequence[NDArray[Any]], kind: type[np.integer]) -> Tensor:
    """(N, longest), zeros behind each row."""
    together = np.zeros((len(rows), max(map(len, rows))), kind)
    for place, row in enumerate(rows):
        together[place, : len(row)] = row
    return torch.from_numpy(together)


def _lengths(rows: Sequence[NDArray[Any]]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


class SpeechLearner:
    """A Learner (models/common/training/loop.py) of recordings."""

    def __init__(
        self, model: Recogniser, groups: list[Group], train: SpeechTrain, sample_rate: int,
        utterances: Utterances, val: Utterances, alphabet: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.network, self.groups = model.network, groups
        self.examples, self.lengths = len(utterances), utterances.lengths
        self.model = model
        self._train, self._sample_rate, self._alphabet = train, sample_rate, alphabet
        self.utterances, self._val = utterances, val
        if train.compile:
            self.network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training sounds and their letters."""
        return self.utterances.fetch(positions)

    def loss(self, batch: Batch) -> Tensor:
        """CTC of an augmented batch, by letter; a text that does not fit into its frames counts for nothing."""
        augment = self._train.augment
        waves, lengths = stretched(batch.samples.float() / FULL_SCALE, batch.lengths, augment.speed)
        waves, lengths = delayed(waves, lengths, round(augment.shift * self._sample_rate))
        waves = louder(noisy(waves, augment.noise, augment.noise_snr_db), augment.gain_db)
        features, frames = self.model.features(waves, lengths)
        if self.model.mel is not None:
            features = masked(features, augment)
        log_probabilities, counts = self.model.answered(features, frames)
        return _ctc(log_probabilities, counts, batch, "mean")

    def evaluate(self) -> dict[str, float]:
        """CTC by letter and one minus the word error rate, greedily decoded, over the validation split."""
        total, letters, edits, words = 0.0, 0, 0, 0
        order = np.argsort(self._val.lengths, kind="stable")
        for part in np.array_split(order, -(-len(order) // self._train.batch_size)):
            batch = self._val.fetch(part)
            log_probabilities, frames = self.model(batch.samples, batch.lengths)
            total += float(_ctc(log_probabilities, frames, batch, "sum"))
            letters += int(batch.counts.sum())
            for place, answer, count in zip(part, log_probabilities.cpu().numpy(), frames.tolist(), strict=True):
                found = decoding.greedy(answer[:count])
                wanted = decoding.spelt(decoding.Found(tuple(self._val.letters[place]), 1.0), self._alphabet).split()
                edits += distance(wanted, decoding.spelt(found, self._alphabet).split())
                words += len(wanted)
        return {"val_loss": total / max(1, letters), "val_word_accuracy": 1 - edits / max(1, words)}


def delayed(waves: Tensor, lengths: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Padded sounds (N, T) of `lengths` (N,) with up to `most` samples of silence put before each."""
    if not most:
        return waves, lengths
    late = torch.randint(most + 1, (len(waves), 1), device=waves.device)
    source = torch.arange(waves.shape[1] + most, device=waves.device) - late
    inside = (source >= 0) & (source < waves.shape[1])
    return waves.gather(1, source.clamp(0, waves.shape[1] - 1)) * inside, lengths + late[:, 0]


def _ctc(log_probabilities: Tensor, frames: Tensor, batch: Batch, reduction: str) -> Tensor:
    by_frame = log_probabilities.transpose(0, 1)
    return F.ctc_loss(
        by_frame, batch.letters, frames, batch.counts, decoding.BLANK, reduction=reduction, zero_infinity=True
    )


def fits(letters: NDArray[np.int64], frames: int) -> bool:
    """Whether CTC can say these letters in so many frames: one each, and a blank between two that are the same."""
    return len(letters) + int((letters[1:] == letters[:-1]).sum()) <= frames
