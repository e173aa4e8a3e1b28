"""What learns to write down what is said: features, network, CTC."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.audio.augmentation import add_noise, augment_spectrogram, random_gain, random_speed
from models.common.audio.batching import pad_batch
from models.common.training.freezing import LayerGroup
from models.common.training.transfer import to_device
from models.common.transcripts.alignment import edit_distance
from models.common.transcripts.ctc_decoding import BLANK, greedy, text_of
from models.speech_recognition.dataset import Utterances
from models.speech_recognition.networks import FULL_SCALE, Recogniser
from models.speech_recognition.params import SpeechTrain


@dataclass(frozen=True)
class Batch:
    """Sounds padded to one length, and their letters."""

    samples: Tensor  # (N, T) int16
    lengths: Tensor  # (N,) int64
    letters: Tensor  # (N, L) int64, padded with the blank
    counts: Tensor  # (N,) int64


class SpeechLearner:
    """A Learner (models/common/training/loop.py) of recordings."""

    def __init__(
        self, model: Recogniser, groups: list[LayerGroup], train: SpeechTrain, sample_rate: int,
        training: Utterances, val: Utterances, alphabet: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.network: nn.Module = model.network
        self.groups, self.examples, self.lengths = groups, len(training), training.lengths
        self.training, self.val = training, val
        self.validation_examples = len(val)
        self._model, self._train, self._sample_rate, self._alphabet = model, train, sample_rate, alphabet
        self._device = next(model.parameters()).device
        if train.compile:
            self.network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training sounds and their letters."""
        return self._batch(self.training, positions)

    def loss(self, batch: Batch) -> Tensor:
        """CTC of an augmented batch, by letter; a text that does not fit into its frames counts for nothing."""
        augment = self._train.augment
        waves, lengths = random_speed(batch.samples.float() / FULL_SCALE, batch.lengths, augment.speed)
        waves, lengths = delayed(waves, lengths, round(augment.shift * self._sample_rate))
        waves = random_gain(add_noise(waves, augment.noise, augment.noise_snr_db), augment.gain_db)
        features, frames = self._model.features(waves, lengths)
        if self._model.mel is not None:
            features = augment_spectrogram(features, augment)
        log_probabilities, counts = self._model.log_probabilities(features, frames)
        return _ctc(log_probabilities, counts, batch, "mean")

    def evaluate(self) -> dict[str, float]:
        """CTC by letter and one minus the word error rate, greedily decoded, over the validation split."""
        total, letters, edits, words = 0.0, 0, 0, 0
        order = np.argsort(self.val.lengths, kind="stable")
        for part in np.array_split(order, -(-len(order) // self._train.batch_size)):
            batch = self._batch(self.val, part)
            log_probabilities, frames = self._model(batch.samples, batch.lengths)
            total += float(_ctc(log_probabilities, frames, batch, "sum"))
            letters += int(batch.counts.sum())
            for row, answer, count in zip(part, log_probabilities.cpu().numpy(), frames.tolist(), strict=True):
                reference = text_of(self.val.letters[row].tolist(), self._alphabet).split()
                hypothesis = text_of(greedy(answer[:count]).letters, self._alphabet).split()
                edits += edit_distance(reference, hypothesis)
                words += len(reference)
        return {"val_loss": total / max(1, letters), "val_word_accuracy": 1 - edits / max(1, words)}

    def exportable(self) -> Recogniser:
        """The network behind its own preprocessing, on the CPU."""
        return self._model.to("cpu").eval()

    def _batch(self, utterances: Utterances, positions: NDArray[np.int64]) -> Batch:
        """Those, on the device."""
        letters = [utterances.letters[position] for position in positions]
        arrays = (*pad_batch(utterances.sounds.take(positions)), *pad_batch(letters))
        return Batch(*to_device(arrays, self._device))


def delayed(waves: Tensor, lengths: Tensor, max_delay: int) -> tuple[Tensor, Tensor]:
    """Padded sounds (N, T) of `lengths` (N,) with up to `max_delay` samples of silence put before each."""
    if not max_delay:
        return waves, lengths
    delay = torch.randint(max_delay + 1, (len(waves), 1), device=waves.device)
    source = torch.arange(waves.shape[1] + max_delay, device=waves.device) - delay
    valid = (source >= 0) & (source < waves.shape[1])
    return waves.gather(1, source.clamp(0, waves.shape[1] - 1)) * valid, lengths + delay[:, 0]


def _ctc(log_probabilities: Tensor, frames: Tensor, batch: Batch, reduction: str) -> Tensor:
    by_frame = log_probabilities.transpose(0, 1)
    return F.ctc_loss(by_frame, batch.letters, frames, batch.counts, BLANK, reduction=reduction, zero_infinity=True)
