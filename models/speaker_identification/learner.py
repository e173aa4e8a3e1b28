"""What learns to tell voices apart: network, random stretches, augmentation, loss."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.audio.augmentation import augment_spectrogram, augment_waveform
from models.common.backbones.pretrained import Origin
from models.common.classification.learning import class_validation
from models.common.training.freezing import LayerGroup
from models.common.training.transfer import to_device
from models.speaker_identification.dataset import Recordings
from models.speaker_identification.networks import SpeakerNetwork
from models.speaker_identification.params import SpeakerTrain

CROP_LENGTHS = 6  # lengths of stretches: each new one costs a CPU the making of its kernels


@dataclass(frozen=True)
class Batch:
    """N recordings on the device, padded with zeros to the longest."""

    samples: Tensor  # (N, T) int16
    lengths: Tensor  # (N,) int64
    speakers: Tensor  # (N,) int64


class SpeakerLearner:
    """A Learner (models/common/training/loop.py) of voices."""

    def __init__(
        self,
        network: SpeakerNetwork,
        groups: list[LayerGroup],
        recordings: Recordings,
        val: Recordings,
        sample_rate: int,
        train: SpeakerTrain,
        origin: Origin | None = None,
    ) -> None:
        """origin: of the weights that the network starts from."""
        self.network: nn.Module = network
        self._network, self.groups, self.origin = network, groups, origin
        self.examples = len(recordings)
        self.validation_examples = len(val)
        self._recordings, self._val, self._train = recordings, val, train
        self._sample_rate = sample_rate
        self._device = next(network.parameters()).device
        if train.compile:
            network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training recordings as they were decoded, whole."""
        return self._batch(self._recordings, positions)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of scaled cosines, the true speaker's less `margin` (AM-softmax, Wang et al. 2018)."""
        train = self._train
        low, high = (round(seconds * self._sample_rate) for seconds in train.crop_seconds)
        share = float(torch.randint(CROP_LENGTHS, ())) / (CROP_LENGTHS - 1)
        samples, lengths = cropped(batch.samples, batch.lengths, round(low + share * (high - low)))
        sounds = augment_waveform(samples, train.augment, self._sample_rate)
        spectrograms = augment_spectrogram(self._network.mel(sounds, lengths), train.augment)
        embeddings = self._network.embedding(spectrograms, self._network.frame_mask(samples, lengths))
        cosines = self._network.cosines(embeddings)
        margins = train.margin * F.one_hot(batch.speakers, cosines.shape[1])
        return F.cross_entropy(train.scale * (cosines - margins), batch.speakers, label_smoothing=train.label_smoothing)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy (without margin or smoothing) and accuracy over the validation split, whole recordings."""
        order = np.argsort(self._val.sounds.lengths, kind="stable")  # of about one length: little is padded
        parts = np.array_split(order, -(-len(order) // self._train.batch_size))
        batches = (self._batch(self._val, part) for part in parts)
        return class_validation((self._network(batch.samples, batch.lengths)[0], batch.speakers) for batch in batches)

    def _batch(self, recordings: Recordings, positions: NDArray[np.int64]) -> Batch:
        arrays = recordings.take(positions)
        return Batch(*to_device(arrays, self._device))


def cropped(samples: Tensor, lengths: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A random stretch of `length` samples of each recording, or all of a shorter one, and how long each now is."""
    length = min(length, samples.shape[1])
    max_start = (lengths - length).clamp(min=0)
    start = (torch.rand(len(samples), device=samples.device) * (max_start + 1)).long()
    index = start[:, None] + torch.arange(length, device=samples.device)
    return samples.gather(1, index.clamp(max=samples.shape[1] - 1)), lengths.clamp(max=length)
