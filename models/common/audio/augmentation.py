"""Random changes to a whole batch of sounds at once, on whatever device it is on, each sound with its own draw.

Shift and speed are one interpolation; noise is coloured by a random first-order filter; masks are SpecAugment's (Park
et al., Interspeech 2019). Randomness is torch's global generator: training seeds it for each epoch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from models.common.audio.mel import SCALE
from models.common.audio.params import AudioAugment

DECIBEL = math.log(10) / 10  # nepers of power
FILTER_KNOTS = 6  # points of a random filter's curve over all bands, straight lines between them
MAX_NOISE_TILT = 0.95  # strongest tilt of the noise, towards low or high frequencies


def augment_waveform(sounds: Tensor, augment: AudioAugment, sample_rate: int) -> Tensor:
    """(N, T) int16 or float of full scale 1 -> float, same shape: shift, speed, noise and gain, all random."""
    waves = sounds.float() if sounds.is_floating_point() else sounds.float() / 32768
    waves = random_shift_speed(waves, augment.shift * sample_rate, augment.speed)
    waves = add_noise(waves, augment.noise, augment.noise_snr_db)
    return random_gain(waves, augment.gain_db)


def augment_spectrogram(spectrograms: Tensor, augment: AudioAugment) -> Tensor:
    """(N, bands, frames) log-mel as LogMel gives it, heard through another microphone, with stretches blanked."""
    return spec_augment(random_filter(spectrograms, augment.filter_db), augment)


def random_filter(spectrograms: Tensor, decibels: float) -> Tensor:
    """(N, bands, frames) log-mel with each sound's bands up to so many decibels louder or softer, along a smooth curve.

    What another microphone, room or voice does to a spectrum (FilterAugment, Nam et al., ICASSP 2022).
    """
    if not decibels:
        return spectrograms
    knots = _signed_uniform(spectrograms.new_empty(len(spectrograms) * FILTER_KNOTS, 1)).view(-1, 1, FILTER_KNOTS)
    curves = F.interpolate(knots, spectrograms.shape[1], mode="linear", align_corners=True)[:, 0]
    return spectrograms + decibels * DECIBEL / SCALE * curves[:, :, None]


def spec_augment(spectrograms: Tensor, augment: AudioAugment) -> Tensor:
    """(N, bands, frames) with stretches of time and of frequency set to 0, the mean of a normalised spectrogram."""
    _, bands, frames = spectrograms.shape
    mask = _random_mask(spectrograms, frames, augment.time_mask, augment.time_masks)[:, None]
    mask = mask | _random_mask(spectrograms, bands, augment.frequency_mask, augment.frequency_masks)[:, :, None]
    return spectrograms.masked_fill(mask, 0.0)


def random_shift_speed(waves: Tensor, shift: float, speed: float) -> Tensor:
    """(N, T) shifted by up to `shift` samples and played up to `speed` faster or slower about the middle; zeros
    come in at the edges."""
    if not shift and not speed:
        return waves
    length = waves.shape[1]
    rate = 1 + speed * _signed_uniform(waves)
    middle = (length - 1) / 2
    time = torch.arange(length, device=waves.device) - middle
    return _interpolate(waves, middle + time * rate + shift * _signed_uniform(waves))


def random_speed(waves: Tensor, lengths: Tensor, speed: float) -> tuple[Tensor, Tensor]:
    """Padded sounds (N, T) of `lengths` (N,) played up to `speed` faster or slower from their start, and what lengths
    they then have; nothing is cut off."""
    if not speed:
        return waves, lengths
    rate = 1 + speed * _signed_uniform(waves)
    new_lengths = ((lengths - 1) / rate[:, 0]).floor().long() + 1
    time = torch.arange(int(new_lengths.max()), device=waves.device)
    valid = time < new_lengths[:, None]
    return _interpolate(waves, time * rate) * valid, new_lengths


def random_gain(waves: Tensor, decibels: float) -> Tensor:
    """(N, T), each by up to so many decibels louder or softer."""
    return waves * 10 ** (decibels / 20 * _signed_uniform(waves)) if decibels else waves


def add_noise(waves: Tensor, share: float, snr_db: tuple[float, float]) -> Tensor:
    """(N, T): `share` of the sounds with noise, from `snr_db[0]` to `snr_db[1]` under their own power."""
    if not share:
        return waves
    low, high = snr_db
    white = torch.randn_like(waves)
    noise = white + MAX_NOISE_TILT * _signed_uniform(waves) * white.roll(1, 1)
    sound_samples = (waves != 0).sum(1, keepdim=True).clamp(min=1)  # padding is no part of the sound
    power = waves.square().sum(1, keepdim=True) / sound_samples
    noise_power = power * 10 ** (-(low + (high - low) * _uniform(waves)) / 10)
    noisy = _uniform(waves) < share
    factor = (noise_power / noise.square().mean(1, keepdim=True)).sqrt() * noisy
    return torch.addcmul(waves, noise, factor)


def _interpolate(waves: Tensor, positions: Tensor) -> Tensor:
    """Values between samples, by straight lines; 0 beyond the ends. positions: (N, T'), in samples."""
    last = waves.shape[1] - 1
    floor = positions.floor()
    fraction = positions - floor
    left = floor.long()
    valid = (left >= 0) & (left < last)
    left = left.clamp(0, max(0, last - 1))
    values = torch.lerp(waves.gather(1, left), waves.gather(1, (left + 1).clamp(max=last)), fraction)
    return values * valid


def _random_mask(like: Tensor, length: int, share: float, count: int) -> Tensor:
    """(N, length) bool: up to `count` random stretches of up to `share` of the length each."""
    mask = torch.zeros(len(like), length, dtype=torch.bool, device=like.device)
    if not share:
        return mask
    centre = torch.arange(length, device=like.device) + 0.5
    for _ in range(count):
        width = share * length * _uniform(like)
        start = (length - width) * _uniform(like)
        mask |= (centre >= start) & (centre < start + width)
    return mask


def _uniform(like: Tensor) -> Tensor:
    """(N, 1) in 0..1."""
    return torch.rand(len(like), 1, device=like.device)


def _signed_uniform(like: Tensor) -> Tensor:
    """(N, 1) in -1..1."""
    return 2 * _uniform(like) - 1
