"""What the tests of speech recognition share: params, an alphabet, sounds."""

import io
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from models.common.audio.batching import pad_batch
from models.speech_recognition.params import SpeechData

DATA = SpeechData(sample_rate=8000, max_seconds=10)
ALPHABET = (" ", "a", "b", "c")


def wav(samples: NDArray[Any], rate: int = 8000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def voices() -> list[NDArray[np.int16]]:
    """Sounds of lengths that are no multiple of anything, one with a click behind its last whole frame."""
    rng = np.random.default_rng(0)
    sounds = [(rng.normal(0, 3000, size) * np.linspace(0, 1, size)).astype(np.int16) for size in (8001, 12345, 801)]
    click = rng.normal(0, 2, 4070)
    click[-60:] += rng.normal(0, 20_000, 60)
    return [*sounds, np.clip(click, -32768, 32767).astype(np.int16)]


def tensors(sounds: list[NDArray[np.int16]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sounds padded to one length, and their lengths: what a network is given."""
    samples, lengths = pad_batch(sounds)
    return torch.from_numpy(samples), torch.from_numpy(lengths)
