"""From samples to log-mel spectrograms inside the network, so that program and training share them.

Exported as one strided convolution with windowed sines and cosines: `torch.stft` has no ONNX form, a convolution runs
everywhere and takes any length. Training takes the FFT, in less than half the time; parity is proven at every export.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW, HOP = 0.025, 0.010  # seconds
LOW = 20.0  # Hz: below is hum
FLOOR = 1e-6  # of the power in a band, full scale 1: under the noise of 16 bits
RANGE = 18.4  # nepers of power, 80 dB: what is further under the loudest spot of a clip counts as silence
FIXED_MEAN, SCALE = -4.0, 4.0  # of log-mel of ordinary speech, roughly
INT16 = 1 / 32768
Normalise = Literal["clip", "fixed"]


class LogMel(nn.Module):
    """Samples (N, T), int16 or float of full scale 1 -> log-mel (N, mels, T // hop) float32. Nothing in it is trained.

    normalise: "clip" takes the clip's own mean away, after cutting it off 80 dB under its loudest spot, so loudness
    does not matter; "fixed" scales every clip the same.
    """

    kernels: Tensor
    filters: Tensor
    shape: Tensor

    def __init__(self, sample_rate: int, mels: int, normalise: Normalise = "clip") -> None:
        super().__init__()
        self.hop = round(HOP * sample_rate)
        self.window = round(WINDOW * sample_rate)
        self.mels = mels
        self._normalise = normalise
        size = 2 ** math.ceil(math.log2(self.window))
        filters = mel_filters(sample_rate, size, mels)
        used = filters.any(0)
        self._size, self._used = size, slice(int(used.nonzero()[0]), int(used.nonzero()[-1]) + 1)
        kernels = fourier_kernels(self.window, size).view(2, -1, self.window)[:, self._used]
        self.register_buffer("kernels", kernels.reshape(-1, 1, self.window), persistent=False)
        self.register_buffer("filters", filters[:, self._used], persistent=False)
        self.register_buffer("shape", hann(self.window).float(), persistent=False)

    def forward(self, sounds: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`lengths` (N,): samples of each clip that are no padding; frames beyond them count for nothing and are 0."""
        with torch.autocast(sounds.device.type, enabled=False):
            loudness = self.spectrogram(sounds)
            if self._normalise == "fixed":
                scaled = (loudness - FIXED_MEAN) / SCALE
                return scaled if lengths is None else scaled * self._inside(scaled, lengths)
            if lengths is None:
                loudness = torch.maximum(loudness, loudness.amax((1, 2), keepdim=True) - RANGE)
                return (loudness - loudness.mean((1, 2), keepdim=True)) / SCALE
            inside = self._inside(loudness, lengths)
            own = loudness.masked_fill(inside == 0, math.log(FLOOR))  # the first frame behind a clip may hear its end
            loudness = torch.maximum(loudness, own.amax((1, 2), keepdim=True) - RANGE)
            frames = inside.sum((1, 2), keepdim=True).clamp(min=1)
            mean = (loudness * inside).sum((1, 2), keepdim=True) / (frames * self.mels)
            return (loudness - mean) * inside / SCALE

    def spectrogram(self, sounds: Tensor) -> Tensor:
        """Logarithm of the power in each band, not normalised. Frame t is centred on sample (t + 1/2) * hop."""
        waves = sounds.float() if sounds.is_floating_point() else sounds.float() * INT16
        spare = self.window - self.hop
        padded = F.pad(waves, (spare // 2, spare - spare // 2))
        exported = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        power = self._power_by_convolution(padded) if exported else self._power_by_fft(padded)
        return torch.matmul(self.filters, power).clamp(min=FLOOR).log()

    def _power_by_convolution(self, padded: Tensor) -> Tensor:
        """(N, bins, frames)."""
        real, imaginary = F.conv1d(padded[:, None], self.kernels, stride=self.hop).chunk(2, 1)
        return real * real + imaginary * imaginary

    def _power_by_fft(self, padded: Tensor) -> Tensor:
        """(N, bins, frames)."""
        bins = torch.fft.rfft(padded.unfold(1, self.window, self.hop) * self.shape, self._size)[..., self._used]
        power: Tensor = bins.real.square() + bins.imag.square()
        return power.transpose(1, 2)

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames come of so many samples."""
        return torch.div(lengths, self.hop, rounding_mode="floor")

    def _inside(self, loudness: Tensor, lengths: Tensor) -> Tensor:
        """(N, 1, frames): 1 where a frame belongs to its clip."""
        place = torch.arange(loudness.shape[-1], device=loudness.device)
        return (place < self.frames(lengths)[:, None])[:, None].to(loudness.dtype)


def fourier_kernels(window: int, size: int) -> Tensor:
    """(2 * (size // 2 + 1), window): a Hann window times cosine, then sine, of each bin of a `size`-point DFT."""
    time = torch.arange(window, dtype=torch.float64)
    shape = hann(window)
    phase = 2 * math.pi / size * torch.arange(size // 2 + 1, dtype=torch.float64)[:, None] * time
    return torch.cat([shape * phase.cos(), shape * phase.sin()]).float()


def hann(window: int) -> Tensor:
    """(window,) float64, periodic."""
    return 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(window, dtype=torch.float64) / window)


def mel_filters(sample_rate: int, size: int, mels: int) -> Tensor:
    """(mels, size // 2 + 1): triangles evenly spaced on the mel scale of HTK, 2595 log10(1 + f / 700)."""
    bins = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    edges = torch.linspace(_mel(LOW), _mel(sample_rate / 2), mels + 2, dtype=torch.float64)
    corners = 700 * (10 ** (edges / 2595) - 1)
    widths = corners.diff()
    slopes = corners[:, None] - bins
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
