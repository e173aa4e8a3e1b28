"""What learns from pictures with sound: branches, augmentation and loss."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.audio_visual.dataset import Media
from models.audio_visual.networks import Answers, AudioVisual
from models.audio_visual.params import AudioVisualTrain
from models.common.audio.augmentation import augment_spectrogram, augment_waveform
from models.common.backbones.pretrained import Origin
from models.common.classification.learning import loss_and_accuracy
from models.common.image.augmentation import augment_pictures
from models.common.training.freezing import LayerGroup
from models.common.training.transfer import to_device


@dataclass(frozen=True)
class Batch:
    """N examples on the device; a half that is missing is all zeros."""

    images: Tensor  # (N, S, S, 3) uint8
    samples: Tensor  # (N, T) int16
    has_image: Tensor  # (N,) uint8
    has_audio: Tensor
    classes: Tensor  # (N,) int64


class AudioVisualLearner:
    """A Learner (models/common/training/loop.py) of pictures with sound."""

    def __init__(
        self,
        network: AudioVisual,
        groups: list[LayerGroup],
        media: tuple[Media, Media],
        classes: tuple[NDArray[np.int64], NDArray[np.int64]],
        sample_rate: int,
        train: AudioVisualTrain,
        origin: Origin | None = None,
    ) -> None:
        """media, classes: of the training and of the validation split; origin: of the weights that it starts from."""
        self.network: nn.Module = network
        self._network, self.groups, self.origin = network, groups, origin
        self.examples, self.validation_examples = len(media[0]), len(media[1])
        self._media, self._classes = media, classes
        self._sample_rate, self._train = sample_rate, train
        self._device = next(network.parameters()).device
        self._format = torch.channels_last if train.channels_last else torch.contiguous_format
        network.image.network.to(memory_format=self._format)
        if train.compile:
            network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training examples, as they were decoded, and their classes."""
        return self._batch(0, positions)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the answers from what there is and from either half alone, with smoothed labels.

        What dropping halves at random would come to on average, without the dice: the branches, which take all the
        time, run once, and the head that joins them three times. (Neverova et al., ModDrop, 2016.)
        """
        image_features = self._image_branch(batch.images, batch.has_image)
        audio_features = self._audio_branch(batch.samples, batch.has_audio)
        answers = self._network.answers(image_features, audio_features, batch.has_image, batch.has_audio)
        return self._mixed_loss(answers, batch, self._train.label_smoothing).mean()

    def evaluate(self) -> dict[str, float]:
        """Over the validation split: the loss as in training but unsmoothed, and the share that is right."""
        count = len(self._media[1])
        parts = np.array_split(np.arange(count), -(-count // self._train.batch_size))
        return loss_and_accuracy(self._validated(self._batch(1, part)) for part in parts)

    def exportable(self) -> AudioVisual:
        """The network behind its own preprocessing, on the CPU."""
        self._network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return self._network.eval()

    def _validated(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        answers = self._network(batch.images, batch.samples, batch.has_image, batch.has_audio)
        return self._mixed_loss(answers, batch, 0.0).sum(), answers.logits, batch.classes

    def _mixed_loss(self, answers: Answers, batch: Batch, smoothing: float) -> Tensor:
        """(N,) mean loss of each example over the inputs that it may come with."""
        both, image, audio = (
            F.cross_entropy(logits.float(), batch.classes, label_smoothing=smoothing, reduction="none")
            for logits in answers
        )
        single = (image * batch.has_image + audio * batch.has_audio) / (batch.has_image + batch.has_audio)
        share = self._train.modality_dropout
        return (1 - share) * both + share * single

    def _image_branch(self, images: Tensor, has: Tensor) -> Tensor:
        """(N, fusion); pictures that are missing take no part in the branch's statistics."""
        rows = has.nonzero()[:, 0]
        if not len(rows):
            return self._zeros(has)
        batch = augment_pictures(images[rows], self._train.augment_image, self._network.image.normalise)
        features = self._network.image.network(batch.contiguous(memory_format=self._format))
        return _scatter_rows(self._network.bring_image(features), rows, len(has))

    def _audio_branch(self, samples: Tensor, has: Tensor) -> Tensor:
        rows = has.nonzero()[:, 0]
        if not len(rows):
            return self._zeros(has)
        augment = self._train.augment_audio
        spectrograms = self._network.mel(augment_waveform(samples[rows], augment, self._sample_rate))
        features = self._network.audio(augment_spectrogram(spectrograms, augment))
        return _scatter_rows(self._network.bring_audio(features), rows, len(has))

    def _zeros(self, has: Tensor) -> Tensor:
        return torch.zeros(len(has), self._train.fusion, device=has.device)

    def _batch(self, split: int, positions: NDArray[np.int64]) -> Batch:
        inputs = self._media[split].take(positions)
        arrays = (inputs.images, inputs.samples, inputs.has_image, inputs.has_audio, self._classes[split][positions])
        return Batch(*to_device(arrays, self._device))


def _scatter_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count, D) with `values` in those rows and zeros in the others."""
    if len(rows) == count:
        return values
    return values.new_zeros(count, values.shape[1]).index_copy(0, rows, values)
