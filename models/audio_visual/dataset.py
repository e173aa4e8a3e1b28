"""Both halves of a manifest's examples, decoded once; training and evaluation take them from here."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.audio_visual.preprocessing import PARTS, Sizes, picture, sound
from models.common.audio.decoding import pad_or_trim
from models.common.data.decoded_cache import decoded, ragged
from models.common.data.packed_files import unpack


@dataclass(frozen=True)
class Inputs:
    """What the program is given of N examples; a half that is missing is all zeros."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    samples: NDArray[np.int16]  # (N, T)
    has_image: NDArray[np.uint8]  # (N,): 0 or 1
    has_audio: NDArray[np.uint8]


class Media:
    """Pictures and clips of the rows of a manifest, by position."""

    def __init__(self, manifest: pd.DataFrame, batches: Path, home: Path, sizes: Sizes) -> None:
        """UserError where a half does not decode."""
        side, rate = sizes.image_size, sizes.sample_rate
        to_pixels = functools.partial(_packed_picture, size=side, max_pixels=sizes.max_pixels)
        to_samples = functools.partial(_packed_sound, sample_rate=rate, max_seconds=sizes.max_seconds)
        self._pictures = decoded(batches, manifest, home, f"pair-rgb{side}", (side, side, 3), to_pixels)
        self._sounds = ragged(batches, manifest, home, f"pair-mono{rate}", to_samples)
        self._samples = sizes.samples
        has = [np.asarray(manifest["parts"].str.contains(part), np.uint8) for part in PARTS]
        self.has_image, self.has_audio = has

    def __len__(self) -> int:
        return len(self._pictures)

    def take(self, positions: NDArray[np.int64]) -> Inputs:
        """Those rows of the manifest."""
        clips = [pad_or_trim(samples, self._samples) for samples in self._sounds.take(positions)]
        return Inputs(
            self._pictures.take(positions), np.stack(clips), self.has_image[positions], self.has_audio[positions]
        )


def _packed_picture(payload: bytes, size: int, max_pixels: int) -> NDArray[np.uint8]:
    return picture(unpack(payload).get("image"), size, max_pixels)


def _packed_sound(payload: bytes, sample_rate: int, max_seconds: float) -> NDArray[np.int16]:
    return sound(unpack(payload).get("audio"), sample_rate, max_seconds)
