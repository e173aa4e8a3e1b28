"""From samples to log-mel spectrograms inside the network, so that program and training share them.

Exported as one strided convolution with windowed sines and cosines: `torch.stft` has no ONNX form, a convolution runs
everywhere and takes any length. Training takes the FFT, in less than half the time; parity is checked at every export.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW, HOP = 0.025, 0.010  # seconds
MIN_FREQUENCY = 20.0  # Hz: below is hum
MIN_POWER = 1e-6  # of the power in a band, full scale 1: under the noise of 16 bits
DYNAMIC_RANGE = 18.4  # nepers of power, 80 dB: what is further under the loudest spot of a clip counts as silence
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
    hann_window: Tensor

    def __init__(self, sample_rate: int, mels: int, normalise: Normalise = "clip") -> None:
        super().__init__()
        self.hop = round(HOP * sample_rate)
        self.window = round(WINDOW * sample_rate)
        self.mels = mels
        self._normalise = normalise
        size = 2 ** math.ceil(math.log2(self.window))
        filters = mel_filters(sample_rate, size, mels)
        used_bins = filters.any(0)
        self._size, self._used_bins = size, slice(int(used_bins.nonzero()[0]), int(used_bins.nonzero()[-1]) + 1)
        kernels = fourier_kernels(self.window, size).view(2, -1, self.window)[:, self._used_bins]
        self.register_buffer("kernels", kernels.reshape(-1, 1, self.window), persistent=False)
        self.register_buffer("filters", filters[:, self._used_bins], persistent=False)
        self.register_buffer("hann_window", hann(self.window).float(), persistent=False)

    def forward(self, sounds: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`lengths` (N,): samples of each clip that are no padding; frames beyond them count for nothing and are 0."""
        with torch.autocast(sounds.device.type, enabled=False):
            log_power = self.spectrogram(sounds)
            if self._normalise == "fixed":
                scaled = (log_power - FIXED_MEAN) / SCALE
                return scaled if lengths is None else scaled * self._frame_mask(scaled, lengths)
            if lengths is None:
                log_power = torch.maximum(log_power, log_power.amax((1, 2), keepdim=True) - DYNAMIC_RANGE)
                return (log_power - log_power.mean((1, 2), keepdim=True)) / SCALE
            mask = self._frame_mask(log_power, lengths)
            # The first frame behind a clip may hear its end.
            valid = log_power.masked_fill(mask == 0, math.log(MIN_POWER))
            log_power = torch.maximum(log_power, valid.amax((1, 2), keepdim=True) - DYNAMIC_RANGE)
            frames = mask.sum((1, 2), keepdim=True).clamp(min=1)
            mean = (log_power * mask).sum((1, 2), keepdim=True) / (frames * self.mels)
            return (log_power - mean) * mask / SCALE

    def spectrogram(self, sounds: Tensor) -> Tensor:
        """Logarithm of the power in each band, not normalised. Frame t is centred on sample (t + 1/2) * hop."""
        waves = sounds.float() if sounds.is_floating_point() else sounds.float() * INT16
        padding = self.window - self.hop
        padded = F.pad(waves, (padding // 2, padding - padding // 2))
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        power = self._power_by_convolution(padded) if tracing else self._power_by_fft(padded)
        return torch.matmul(self.filters, power).clamp(min=MIN_POWER).log()

    def _power_by_convolution(self, padded: Tensor) -> Tensor:
        """(N, bins, frames)."""
        real, imaginary = F.conv1d(padded[:, None], self.kernels, stride=self.hop).chunk(2, 1)
        return real * real + imaginary * imaginary

    def _power_by_fft(self, padded: Tensor) -> Tensor:
        """(N, bins, frames)."""
        bins = torch.fft.rfft(padded.unfold(1, self.window, self.hop) * self.hann_window, self._size)
        bins = bins[..., self._used_bins]
        power: Tensor = bins.real.square() + bins.imag.square()
        return power.transpose(1, 2)

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames come of so many samples."""
        return torch.div(lengths, self.hop, rounding_mode="floor")

    def _frame_mask(self, log_power: Tensor, lengths: Tensor) -> Tensor:
        """(N, 1, frames): 1 where a frame belongs to its clip."""
        positions = torch.arange(log_power.shape[-1], device=log_power.device)
        return (positions < self.frames(lengths)[:, None])[:, None].to(log_power.dtype)


def fourier_kernels(window: int, size: int) -> Tensor:
    """(2 * (size // 2 + 1), window): a Hann window times cosine, then sine, of each bin of a `size`-point DFT."""
    time = torch.arange(window, dtype=torch.float64)
    hann_window = hann(window)
    phase = 2 * math.pi / size * torch.arange(size // 2 + 1, dtype=torch.float64)[:, None] * time
    return torch.cat([hann_window * phase.cos(), hann_window * phase.sin()]).float()


def hann(window: int) -> Tensor:
    """(window,) float64, periodic."""
    return 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(window, dtype=torch.float64) / window)


def mel_filters(sample_rate: int, size: int, mels: int) -> Tensor:
    """(mels, size // 2 + 1): triangles evenly spaced on the mel scale of HTK, 2595 log10(1 + f / 700)."""
    bins = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    edges = torch.linspace(_mel(MIN_FREQUENCY), _mel(sample_rate / 2), mels + 2, dtype=torch.float64)
    corners = 700 * (10 ** (edges / 2595) - 1)
    widths = corners.diff()
    slopes = corners[:, None] - bins
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
