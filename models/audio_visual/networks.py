"""Two branches and what joins them: a picture and a sound, each brought to the same few numbers, then one answer.

Late fusion: the branches meet behind their pooling. Where a half is missing, learnt numbers stand in its place, so one
head answers from both, from the picture alone and from the sound alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.audio_visual.params import AudioVisualData, AudioVisualTrain
from models.common.audio.backbones import StatisticsPooling, backbone
from models.common.audio.mel import LogMel
from models.common.backbones.classifiers import Backbone, feature_size
from models.common.backbones.normalisation import normalised
from models.common.backbones.pretrained import Origin, load_pretrained


class Answers(NamedTuple):
    """Logits (N, classes) from what there is of each example, from its picture alone, and from its sound alone."""

    logits: Tensor
    logits_image: Tensor
    logits_audio: Tensor


class AudioVisual(nn.Module):
    """Pictures (N, S, S, 3) uint8 and samples (N, T) int16, with 1 where there is one and 0 where not -> Answers.

    This is what is exported. Answers from a half that is missing say how common the classes are, no more.
    """

    def __init__(self, classes: int, data: AudioVisualData, train: AudioVisualTrain) -> None:
        super().__init__()
        self.image = normalised(train.image_network, image_backbone(data, train).features())
        self.mel = LogMel(data.sample_rate, train.mels)
        self.audio = _AudioBranch(train)
        self.bring_image = _Projection(feature_size(self.image.network, data.image_size), train.fusion)
        self.bring_audio = _Projection(self.audio.dim, train.fusion)
        self.join = nn.Sequential(nn.Linear(2 * train.fusion, train.fusion), nn.ReLU(), nn.Dropout(train.dropout))
        self.classifier = nn.Linear(train.fusion, classes)

    def forward(self, images: Tensor, samples: Tensor, has_image: Tensor, has_audio: Tensor) -> Answers:
        image_features = self.bring_image(self.image(images))
        audio_features = self.bring_audio(self.audio(self.mel(samples)))
        return self.answers(image_features, audio_features, has_image, has_audio)

    def answers(self, image_features: Tensor, audio_features: Tensor, has_image: Tensor, has_audio: Tensor) -> Answers:
        """Of both branches' numbers (N, fusion), whatever stands in the rows that have none."""
        image_features = torch.where(
            has_image[:, None] > 0, image_features, self.bring_image.absent.to(image_features.dtype)
        )
        audio_features = torch.where(
            has_audio[:, None] > 0, audio_features, self.bring_audio.absent.to(audio_features.dtype)
        )
        absent_image, absent_audio = (
            projection.absent.to(like.dtype).expand_as(like)
            for projection, like in ((self.bring_image, image_features), (self.bring_audio, audio_features))
        )
        return Answers(
            self._classify(image_features, audio_features),
            self._classify(image_features, absent_audio),
            self._classify(absent_image, audio_features),
        )

    def _classify(self, image_features: Tensor, audio_features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.join(torch.cat([image_features, audio_features], dim=1)))
        return logits


class _Projection(nn.Module):
    """(N, inward) -> (N, fusion); `absent`: what stands for an example that has none."""

    def __init__(self, in_features: int, fusion: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, fusion)
        self.norm = nn.LayerNorm(fusion)
        self.absent = nn.Parameter(torch.zeros(fusion))

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.norm(self.linear(features))
        return projected


class _AudioBranch(nn.Module):
    """(N, mels, F) -> (N, dim)."""

    def __init__(self, train: AudioVisualTrain) -> None:
        super().__init__()
        self.backbone = backbone(train.audio_network, train.mels, train.audio_width)
        self.pool = StatisticsPooling(self.backbone.channels, attentive=False)
        self.dim = 2 * self.backbone.channels

    def forward(self, spectrograms: Tensor) -> Tensor:
        pooled: Tensor = self.pool(*self.backbone(spectrograms, torch.ones_like(spectrograms[:, 0])))
        return pooled


def image_backbone(data: AudioVisualData, train: AudioVisualTrain) -> Backbone:
    """Of the pictures."""
    return Backbone(train.image_network, data.image_size, train.image_width, auxiliary=False)


def load_image_weights(network: AudioVisual, data: AudioVisualData, train: AudioVisualTrain) -> Origin:
    """Fills the image branch with ImageNet's weights, and says where they come from. UserError where they cannot be
    had."""
    return load_pretrained(network.image.network, [], image_backbone(data, train))
