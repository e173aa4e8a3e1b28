"""What learns to tell commands apart: network, augmentation and loss."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.audio.augmentation import augment_spectrogram, augment_waveform
from models.common.backbones.pretrained import Origin
from models.common.classification.learning import class_validation, mixup_loss
from models.common.data.decoded_cache import Ragged
from models.common.training.freezing import LayerGroup
from models.speech_command.networks import CommandNetwork
from models.speech_command.params import CommandTrain

Batch = tuple[Tensor, Tensor]  # clips (N, T) int16, classes (N,) int64


class Clips:
    """Clips of one length with their classes, by position; on the device as a whole: they are small."""

    def __init__(self, clips: Ragged, classes: NDArray[np.int64], device: torch.device) -> None:
        self._clips = torch.from_numpy(np.stack(clips.take(np.arange(len(clips))))).to(device)
        self._classes = torch.tensor(classes, device=device)

    def __len__(self) -> int:
        return len(self._clips)

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those clips and classes, on the device."""
        index = torch.from_numpy(positions).to(self._clips.device, non_blocking=True)
        return self._clips[index], self._classes[index]


class CommandLearner:
    """A Learner (models/common/training/loop.py) of commands."""

    def __init__(
        self,
        network: CommandNetwork,
        groups: list[LayerGroup],
        clips: Clips,
        val: Clips,
        sample_rate: int,
        train: CommandTrain,
        origin: Origin | None = None,
    ) -> None:
        """origin: of the weights that the network starts from."""
        self.network: nn.Module = network
        self._network, self.groups, self.origin = network, groups, origin
        self.examples = len(clips)
        self.validation_examples = len(val)
        self._clips, self._val, self._train = clips, val, train
        self._sample_rate = sample_rate
        if train.compile:
            network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training clips, as they were decoded, and their classes."""
        return self._clips.fetch(positions)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of an augmented, mixed-up batch, with smoothed labels."""
        clips, classes = batch
        features = self.augmented(clips)
        return mixup_loss(features, classes, self._train.mixup, self._network.classify, self._loss)

    def augmented(self, clips: Tensor) -> Tensor:
        """What the network classifies, of clips that are changed at random."""
        features = self._network.features(augment_waveform(clips, self._train.augment, self._sample_rate))
        return augment_spectrogram(features, self._train.augment) if features.ndim == 3 else features

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy (unsmoothed) and accuracy over the validation split."""
        parts = np.array_split(np.arange(len(self._val)), -(-len(self._val) // self._train.batch_size))
        batches = map(self._val.fetch, parts)
        return class_validation((self.network(clips), classes) for clips, classes in batches)

    def _loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), classes, label_smoothing=self._train.label_smoothing)
