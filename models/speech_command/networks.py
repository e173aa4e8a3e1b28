"""Networks from a clip to a command: our own and timm's on log-mel, and torchaudio's wav2vec 2.0 and HuBERT with a
pooled head."""

import itertools

import torch
from torch import Tensor, nn

from models.common.audio.backbones import CRNN, BCResNet, backbone
from models.common.audio.bundles import bundle_model, load_bundle
from models.common.audio.mel import INT16, LogMel
from models.common.audio.spectrogram_pictures import SpectrogramPictures
from models.common.backbones.names import is_timm
from models.common.backbones.pretrained import Origin
from models.speech_command.params import BUILTIN_NETWORKS, CommandTrain

CHANNELS = (32, 48, 96, 128)  # of MelResNet with width 1: its stem and its blocks


class CommandNetwork(nn.Module):
    """Clips (N, T), int16 or float of full scale 1 -> logits (N, commands). This is what is exported."""

    head: nn.Linear

    def forward(self, clips: Tensor) -> Tensor:
        return self.classify(self.features(clips))

    def features(self, clips: Tensor) -> Tensor:
        """What SpecAugment masks and mixup mixes: spectrograms (N, mels, F), or the clips themselves."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Logits."""
        raise NotImplementedError


class MelNetwork(CommandNetwork):
    """Log-mel, a backbone on spectrograms, and the mean over time."""

    def __init__(self, commands: int, sample_rate: int, train: CommandTrain) -> None:
        super().__init__()
        self.mel = LogMel(sample_rate, train.mels)
        self.backbone = _backbone(train)
        self.dropout = nn.Dropout(train.dropout)
        self.head = nn.Linear(self.backbone.channels, commands)

    def features(self, clips: Tensor) -> Tensor:
        spectrograms: Tensor = self.mel(clips)
        return spectrograms

    def classify(self, features: Tensor) -> Tensor:
        frames, _ = self.backbone(features, torch.ones_like(features[:, 0]))
        logits: Tensor = self.head(self.dropout(frames.mean(2)))
        return logits


class MelResNet(nn.Module):
    """A residual CNN on spectrograms: dense 3 x 3 convolutions, which a CPU is quickest at, each stage at half the
    resolution of the one before. With the interface of models/common/audio/backbones.py."""

    def __init__(self, width: float) -> None:
        super().__init__()
        stem, *stages = (max(8, round(each * width)) for each in CHANNELS)
        blocks = [
            _Residual(in_channels, out_channels) for in_channels, out_channels in itertools.pairwise([stem, *stages])
        ]
        self.layers = nn.Sequential(nn.Conv2d(1, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU(), *blocks)
        self.channels = stages[-1]

    def forward(self, spectrograms: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(N, mels, F) and (N, F) -> (N, channels, F / 16) and (N, F / 16)."""
        features = self.layers(spectrograms[:, None].contiguous(memory_format=torch.channels_last))
        return features.mean(2), mask[:, :: 2 ** len(CHANNELS)]


class _Residual(nn.Module):
    """He et al., CVPR 2016, halving; pooled where the channels are carried over."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.carried = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.inner(features) + self.carried(features))


def _backbone(train: CommandTrain) -> MelResNet | BCResNet | CRNN | SpectrogramPictures:
    if is_timm(train.network):  # all clips are of one length
        return SpectrogramPictures(train.network, train.mels, BUILTIN_NETWORKS, any_length=False)
    if train.network == "mel_resnet":
        network = MelResNet(train.width)
        return network.to(memory_format=torch.channels_last)
    return backbone("bc_resnet" if train.network == "bc_resnet" else "crnn", train.mels, train.width)


class BundleNetwork(CommandNetwork):
    """A torchaudio bundle, the mean of its frames over time, a new head."""

    def __init__(self, commands: int, sample_rate: int, train: CommandTrain) -> None:
        super().__init__()
        self.model, size, self._normalises = bundle_model(train.network, sample_rate, BUILTIN_NETWORKS)
        self.dropout = nn.Dropout(train.dropout)
        self.head = nn.Linear(size, commands)

    def features(self, clips: Tensor) -> Tensor:
        waves = clips if clips.is_floating_point() else clips.float() * INT16
        if not self._normalises:
            return waves
        centred = waves - waves.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()

    def classify(self, features: Tensor) -> Tensor:
        frames, _ = self.model(features)
        logits: Tensor = self.head(self.dropout(frames.mean(1)))
        return logits


def build(commands: int, sample_rate: int, train: CommandTrain) -> CommandNetwork:
    """The network that params name, untrained.

    Raises UserError for an unknown name, and for another sample rate than the bundle's.
    """
    if train.network in BUILTIN_NETWORKS or is_timm(train.network):
        return MelNetwork(commands, sample_rate, train)
    return BundleNetwork(commands, sample_rate, train)


def load_pretrained(network: CommandNetwork, train: CommandTrain) -> Origin:
    """Fills all but the head with the weights that params ask for. UserError where they cannot be had."""
    if isinstance(network, BundleNetwork):
        return load_bundle(network.model, train.network, BUILTIN_NETWORKS)
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, SpectrogramPictures), train.network  # params have seen to that
    return backbone.load_pretrained()
