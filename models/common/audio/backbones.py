"""Networks from a spectrogram to features by frame that never see padding: an answer is the same in any batch.

Padding is held at zero before every operation that looks at several frames, and recurrent layers start behind it.
"""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Backbone = Literal["bc_resnet", "crnn"]
STAGES = ((1, 2, 1), (1.5, 2, 2), (2, 4, 4), (2.5, 4, 8))  # of BC-ResNet: width, blocks, dilation in time
HALVING_STAGES = (1, 2)  # stages that begin by halving the frequencies
BASE_CHANNELS = 24  # channels that `width` 1 means in the first stage


def backbone(name: Backbone, mels: int, width: float) -> "BCResNet | CRNN":
    """(N, mels, F) and (N, F), 1 inside the sound and 0 in its padding -> (N, channels, F / 2) and (N, F / 2).

    `width`: times the usual channels. The network says `channels` itself.
    """
    return BCResNet(width) if name == "bc_resnet" else CRNN(mels, width)


class BCResNet(nn.Module):
    """Broadcasted residual learning (Kim et al., Interspeech 2021): 2-D convolutions along frequency, cheap 1-D ones
    along time on their mean, whose result is added to all frequencies."""

    def __init__(self, width: float) -> None:
        super().__init__()
        stem = max(8, round(BASE_CHANNELS * width))
        plan = [
            (
                max(8, round(BASE_CHANNELS * width * multiplier)),
                dilation,
                2 if stage in HALVING_STAGES and block == 0 else 1,
            )
            for stage, (multiplier, blocks, dilation) in enumerate(STAGES)
            for block in range(blocks)
        ]
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, 5, (2, 2), 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        channels = [stem, *(out_channels for out_channels, *_ in plan)]
        self.blocks = nn.ModuleList(
            _BroadcastBlock(*pair, *rest) for pair, (_, *rest) in zip(itertools.pairwise(channels), plan, strict=True)
        )
        self.channels = 2 * channels[-1]
        self.last = nn.Sequential(nn.Conv1d(channels[-1], self.channels, 1, bias=False), nn.BatchNorm1d(self.channels))

    def forward(self, spectrograms: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.stem((spectrograms * mask[:, None])[:, None])
        mask = mask[:, ::2]
        for block in self.blocks:
            features = block(features, mask)
        return F.relu(self.last(features.mean(2))), mask


class _BroadcastBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, dilation: int, stride: int) -> None:
        super().__init__()
        self.changes_shape = in_channels != out_channels or stride != 1
        self.widen = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        ) if in_channels != out_channels else nn.Identity()  # fmt: skip
        self.along_frequency = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, (3, 1), (stride, 1), (1, 0), groups=out_channels, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.along_time = nn.Conv1d(
            out_channels, out_channels, 3, 1, dilation, dilation, groups=out_channels, bias=False
        )
        self.mixed = nn.Sequential(
            nn.BatchNorm1d(out_channels),
            nn.SiLU(inplace=True),
            nn.Conv1d(out_channels, out_channels, 1),
            nn.Dropout(0.1),
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        local = self.along_frequency(self.widen(features))
        over_time = self.mixed(self.along_time(local.mean(2) * mask[:, None]))
        out = local + over_time[:, :, None]
        return F.relu(out if self.changes_shape else out + features)


class CRNN(nn.Module):
    """Three convolutions, then a recurrent layer from either end."""

    def __init__(self, mels: int, width: float) -> None:
        super().__init__()
        channels = [1, *(max(8, round(each * width)) for each in (16, 32, 48))]
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(*pair, 3, (2, 2 if index == 0 else 1), 1, bias=False), nn.BatchNorm2d(pair[1]))
            for index, pair in enumerate(itertools.pairwise(channels))
        )
        hidden = max(16, round(64 * width))
        in_features = channels[-1] * -(-mels // 8)
        self.there = nn.GRU(in_features, hidden, batch_first=True)
        self.back = nn.GRU(in_features, hidden, batch_first=True)
        self.channels = 2 * hidden

    def forward(self, spectrograms: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = (spectrograms * mask[:, None])[:, None]
        mask = mask[:, ::2]
        for convolve in self.convolutions:
            features = F.relu(convolve(features)) * mask[:, None, None]
        frames = features.flatten(1, 2).transpose(1, 2)
        order = _reversed_order(mask)[:, :, None]
        forwards, _ = self.there(frames)
        backwards, _ = self.back(frames.gather(1, order.expand_as(frames)))
        both = torch.cat([forwards, backwards.gather(1, order.expand_as(backwards))], dim=2)
        return both.transpose(1, 2), mask


def _reversed_order(mask: Tensor) -> Tensor:
    """(N, F): where each frame comes from when every sound is played backwards and its padding stays behind it."""
    positions = torch.arange(mask.shape[1], device=mask.device)[None]
    mirrored = mask.sum(1, keepdim=True).long() - 1 - positions
    return torch.where(mirrored >= 0, mirrored, positions)


class StatisticsPooling(nn.Module):
    """(N, C, F) and (N, F) -> (N, 2 C): mean and standard deviation of the frames inside, weighted by attention.

    Attentive statistics pooling (Okabe et al., Interspeech 2018); without `attentive` every frame counts the same.
    """

    def __init__(self, channels: int, attentive: bool) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(channels, 64, 1), nn.Tanh(), nn.Conv1d(64, channels, 1)
        ) if attentive else None  # fmt: skip

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        features, mask = features.float(), mask[:, None].float()
        if self.attention is None:
            weights = mask / mask.sum(2, keepdim=True)
        else:
            weights = torch.softmax(self.attention(features).float() + (mask - 1) * 1e4, dim=2)
        mean = (features * weights).sum(2)
        variance = (features.square() * weights).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-6).sqrt()], dim=1)
