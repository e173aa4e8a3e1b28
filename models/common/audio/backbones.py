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
HALVED = (1, 2)  # stages that begin by halving the frequencies
BASE = 24  # channels that `width` 1 means in the first stage


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
        stem = max(8, round(BASE * width))
        plan = [
            (max(8, round(BASE * width * wider)), dilation, 2 if stage in HALVED and block == 0 else 1)
            for stage, (wider, blocks, dilation) in enumerate(STAGES)
            for block in range(blocks)
        ]
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, 5, (2, 2), 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        inward = [stem, *(outward for outward, *_ in plan)]
        self.blocks = nn.ModuleList(
            _Broadcast(*pair, *rest) for pair, (_, *rest) in zip(itertools.pairwise(inward), plan, strict=True)
        )
        self.channels = 2 * inward[-1]
        self.last = nn.Sequential(nn.Conv1d(inward[-1], self.channels, 1, bias=False), nn.BatchNorm1d(self.channels))

    def forward(self, spectrograms: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        features = self.stem((spectrograms * inside[:, None])[:, None])
        inside = inside[:, ::2]
        for block in self.blocks:
            features = block(features, inside)
        return F.relu(self.last(features.mean(2))), inside


class _Broadcast(nn.Module):
    def __init__(self, inward: int, outward: int, dilation: int, stride: int) -> None:
        super().__init__()
        self.changes = inward != outward or stride != 1
        self.widen = nn.Sequential(
            nn.Conv2d(inward, outward, 1, bias=False), nn.BatchNorm2d(outward), nn.ReLU(inplace=True)
        ) if inward != outward else nn.Identity()  # fmt: skip
        self.along_frequency = nn.Sequential(
            nn.Conv2d(outward, outward, (3, 1), (stride, 1), (1, 0), groups=outward, bias=False),
            nn.BatchNorm2d(outward),
        )
        self.along_time = nn.Conv1d(outward, outward, 3, 1, dilation, dilation, groups=outward, bias=False)
        self.mixed = nn.Sequential(
            nn.BatchNorm1d(outward), nn.SiLU(inplace=True), nn.Conv1d(outward, outward, 1), nn.Dropout(0.1)
        )

    def forward(self, features: Tensor, inside: Tensor) -> Tensor:
        local = self.along_frequency(self.widen(features))
        over_time = self.mixed(self.along_time(local.mean(2) * inside[:, None]))
        out = local + over_time[:, :, None]
        return F.relu(out if self.changes else out + features)


class CRNN(nn.Module):
    """Three convolutions, then a recurrent layer from either end."""

    def __init__(self, mels: int, width: float) -> None:
        super().__init__()
        sizes = [1, *(max(8, round(each * width)) for each in (16, 32, 48))]
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(*pair, 3, (2, 2 if place == 0 else 1), 1, bias=False), nn.BatchNorm2d(pair[1]))
            for place, pair in enumerate(itertools.pairwise(sizes))
        )
        hidden = max(16, round(64 * width))
        flat = sizes[-1] * -(-mels // 8)
        self.there = nn.GRU(flat, hidden, batch_first=True)
        self.back = nn.GRU(flat, hidden, batch_first=True)
        self.channels = 2 * hidden

    def forward(self, spectrograms: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        features = (spectrograms * inside[:, None])[:, None]
        inside = inside[:, ::2]
        for convolve in self.convolutions:
            features = F.relu(convolve(features)) * inside[:, None, None]
        frames = features.flatten(1, 2).transpose(1, 2)
        order = _turned(inside)[:, :, None]
        there, _ = self.there(frames)
        back, _ = self.back(frames.gather(1, order.expand_as(frames)))
        both = torch.cat([there, back.gather(1, order.expand_as(back))], dim=2)
        return both.transpose(1, 2), inside


def _turned(inside: Tensor) -> Tensor:
    """(N, F): where each frame comes from when every sound is played backwards and its padding stays behind it."""
    place = torch.arange(inside.shape[1], device=inside.device)[None]
    mirrored = inside.sum(1, keepdim=True).long() - 1 - place
    return torch.where(mirrored >= 0, mirrored, place)


class Statistics(nn.Module):
    """(N, C, F) and (N, F) -> (N, 2 C): mean and standard deviation of the frames inside, weighted by attention.

    Attentive statistics pooling (Okabe et al., Interspeech 2018); without `attentive` every frame counts the same.
    """

    def __init__(self, channels: int, attentive: bool) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(channels, 64, 1), nn.Tanh(), nn.Conv1d(64, channels, 1)
        ) if attentive else None  # fmt: skip

    def forward(self, features: Tensor, inside: Tensor) -> Tensor:
        features, inside = features.float(), inside[:, None].float()
        if self.attention is None:
            weights = inside / inside.sum(2, keepdim=True)
        else:
            weights = torch.softmax(self.attention(features).float() + (inside - 1) * 1e4, dim=2)
        mean = (features * weights).sum(2)
        spread = (features.square() * weights).sum(2) - mean.square()
        return torch.cat([mean, spread.clamp(min=1e-6).sqrt()], dim=1)
