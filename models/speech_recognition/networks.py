"""Networks that turn a spectrogram into letters by frame: convolutions with recurrent layers on top, or a Conformer.

`build` makes one of them, or a torchaudio bundle, behind its own preprocessing; `load_initial` fills it.

Whatever a sound is padded with to the length of its batch is held at zero and never looked at, so that an answer does
not depend on what else is in the batch.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.audio.bundles import CTCBundle, load_ctc_bundle
from models.common.audio.mel import LogMel
from models.common.training.weights import load_weights
from models.speech_recognition.params import BUILTIN_NETWORKS, SpeechTrain

FULL_SCALE = 32768
KERNEL_FRAMES = 15  # frames that a Conformer's depthwise convolution sees (Gulati et al., 2020, have 32 of 40 ms)
FEED_FORWARD_FACTOR = 4  # of a Conformer's feed-forward layers


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """(N, size) bool: which frames are of the sound and not of the padding."""
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


class Stem(nn.Module):
    """(N, mels, F) -> (N, F / subsampling, width): two convolutions over time and frequency, then one linear layer."""

    def __init__(self, mels: int, channels: int, width: int, subsampling: int) -> None:
        super().__init__()
        self._strides = (2, subsampling // 2)  # in time; in frequency both halve
        self.first = nn.Conv2d(1, channels, 3, (2, 2), 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, (2, subsampling // 2), 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.out = nn.Linear(channels * -(-mels // 4), width)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames and how many of each are of the sound."""
        outputs = features[:, None]
        layers = ((self.first, self.first_norm), (self.second, self.second_norm))
        for stride, (convolve, norm) in zip(self._strides, layers, strict=True):
            outputs = F.relu(norm(convolve(outputs)))
            lengths = torch.div(lengths + (stride - 1), stride, rounding_mode="floor")
            outputs = outputs * frame_mask(lengths, outputs.shape[-1])[:, None, None].to(outputs.dtype)
        return self.out(outputs.flatten(1, 2).transpose(1, 2)), lengths


class Bidirectional(nn.Module):
    """A recurrent layer from the front and one from the end of each sound: (N, F, inputs) -> (N, F, 2 width)."""

    def __init__(self, cell: type[nn.GRU] | type[nn.LSTM], inputs: int, width: int) -> None:
        super().__init__()
        self.forwards = cell(inputs, width, batch_first=True)
        self.backwards = cell(inputs, width, batch_first=True)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The padding stays behind the sound in either direction, so nothing is read that came through it."""
        forwards, _ = self.forwards(frames)
        backwards, _ = self.backwards(_reversed(frames, lengths))
        return torch.cat([forwards, _reversed(backwards, lengths)], dim=2)


def _reversed(frames: Tensor, lengths: Tensor) -> Tensor:
    """Each sound's frames in reverse, its padding where it was."""
    positions = torch.arange(frames.shape[1], device=frames.device)[None]
    mirrored = lengths[:, None] - 1 - positions
    source = torch.where(mirrored >= 0, mirrored, positions)
    return frames.gather(1, source[:, :, None].expand(-1, -1, frames.shape[2]))


class Recurrent(nn.Module):
    """Convolutions and recurrent layers (as in Deep Speech 2, Amodei et al. 2016): features -> logits by frame."""

    def __init__(self, outputs: int, train: SpeechTrain) -> None:
        super().__init__()
        cell = nn.GRU if train.network == "cnn_bigru" else nn.LSTM
        self.stem = Stem(train.mels, train.channels, 2 * train.width, train.subsampling)
        self.layers = nn.ModuleList(Bidirectional(cell, 2 * train.width, train.width) for _ in range(train.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(2 * train.width) for _ in range(train.layers))
        self.dropout = nn.Dropout(train.dropout)
        self.head = nn.Linear(2 * train.width, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, F', outputs) of features (N, mels, F), and how many frames of each are of the sound."""
        frames, lengths = self.stem(features, lengths)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            frames = norm(layer(self.dropout(frames), lengths))
        return self.head(self.dropout(frames)), lengths


class Attention(nn.Module):
    """Self-attention that does not look at padding."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._dropout = heads, dropout
        self.inside = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """frames (N, F, width); mask (N, F) bool, True for those of the sound."""
        count, size, width = frames.shape
        split = self.inside(frames).view(count, size, 3, self._heads, width // self._heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -1e4)
        attention = torch.softmax(
            query @ key.transpose(2, 3) / math.sqrt(width // self._heads) + bias[:, None, None], -1
        )
        mixed = F.dropout(attention, self._dropout, self.training) @ value
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(count, size, width))
        return out


class Convolution(nn.Module):
    """A Conformer's: gate, depthwise over time, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, KERNEL_FRAMES, padding=KERNEL_FRAMES // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        gated = F.glu(self.gate(frames)) * mask[:, :, None].to(frames.dtype)
        convolved = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.out(F.silu(self.norm(convolved)))
        return out


class Block(nn.Module):
    """Half a feed-forward layer, attention, convolution, the other half (Gulati et al., Interspeech 2020)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before, self.after = _feed_forward(width, dropout), _feed_forward(width, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.convolution_norm = nn.LayerNorm(width)
        self.convolution = Convolution(width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        frames = frames + 0.5 * self.before(frames)
        frames = frames + self.dropout(self.attention(self.attention_norm(frames), mask))
        frames = frames + self.dropout(self.convolution(self.convolution_norm(frames), mask))
        out: Tensor = self.norm(frames + 0.5 * self.after(frames))
        return out


def _feed_forward(width: int, dropout: float) -> nn.Sequential:
    layers = [nn.LayerNorm(width), nn.Linear(width, FEED_FORWARD_FACTOR * width), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(FEED_FORWARD_FACTOR * width, width), nn.Dropout(dropout))


class Conformer(nn.Module):
    """Attention and convolutions: features -> logits by frame. Ours, since torchaudio's looks into the padding."""

    def __init__(self, outputs: int, train: SpeechTrain) -> None:
        super().__init__()
        self.stem = Stem(train.mels, train.channels, train.width, train.subsampling)
        self.blocks = nn.ModuleList(Block(train.width, train.heads, train.dropout) for _ in range(train.layers))
        self.head = nn.Linear(train.width, outputs)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, F', outputs) of features (N, mels, F), and how many frames of each are of the sound."""
        frames, lengths = self.stem(features, lengths)
        frames = frames + _positional_encoding(frames)
        mask = frame_mask(lengths, frames.shape[1])
        for block in self.blocks:
            frames = block(frames, mask)
        return self.head(frames), lengths


def _positional_encoding(frames: Tensor) -> Tensor:
    """(F, width): where a frame is, as sines and cosines (Vaswani et al., 2017)."""
    width = frames.shape[2]
    positions = torch.arange(frames.shape[1], device=frames.device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=frames.device) * (-math.log(10_000.0) / width))
    return torch.cat([torch.sin(positions * rates), torch.cos(positions * rates)], dim=1).to(frames.dtype)


Network = Recurrent | Conformer | CTCBundle


class Recogniser(nn.Module):
    """A network with its preprocessing: samples (N, T) int16 and how many of each are no padding -> log probabilities
    of the letters by frame. This is what is exported."""

    def __init__(self, network: Network, mel: LogMel | None) -> None:
        """`mel`: None for a network that takes the samples themselves."""
        super().__init__()
        self.network, self.mel = network, mel

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F, 1 + letters) float32 log probabilities, the blank first; (N,) frames of each."""
        return self.log_probabilities(*self.features(samples.float() / FULL_SCALE, lengths))

    def features(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the network takes, of waves (N, T) of full scale 1, and how long that is."""
        if self.mel is None:
            return waves, lengths
        return self.mel(waves, lengths), self.mel.frames(lengths)

    def log_probabilities(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """In fp32, also under autocast: CTC adds up hundreds of them."""
        logits, frames = self.network(features, lengths)
        return F.log_softmax(logits.float(), dim=2), frames


def build(train: SpeechTrain, sample_rate: int, alphabet: tuple[str, ...]) -> Recogniser:
    """An untrained network with its preprocessing. UserError where there is no such network."""
    outputs = 1 + len(alphabet)
    if train.network not in BUILTIN_NETWORKS:
        return Recogniser(CTCBundle(train.network, outputs, sample_rate, BUILTIN_NETWORKS), None)
    network = (Conformer if train.network == "conformer" else Recurrent)(outputs, train)
    return Recogniser(network, LogMel(sample_rate, train.mels))


def load_initial(network: Network, train: SpeechTrain, alphabet: tuple[str, ...], initial: Path | None) -> None:
    """Fills `network` from torchaudio's weights or from the file `initial`; leaves it as it is without either.

    Raises UserError where the weights cannot be had or are another network's.
    """
    letters = ("", *alphabet)
    if isinstance(network, CTCBundle) and train.weights == "pretrained":
        load_ctc_bundle(network, train.network, letters, BUILTIN_NETWORKS)
    elif initial:
        load_weights(network, [network.head], train.network, letters, initial)
