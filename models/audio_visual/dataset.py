"""Both halves of a manifest's examples, decoded once; training and evaluation take them from here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.audio_visual.inputs import PARTS, Sizes, clip, picture, sound
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
        side = sizes.image_size
        seen, heard = f"pair-rgb{side}", f"pair-mono{sizes.sample_rate}"
        self._pictures = decoded(
            batches, manifest, home, seen, (side, side, 3), lambda payload: picture(unpack(payload).get("image"), sizes)
        )
        self._sounds = ragged(
            batches, manifest, home, heard, lambda payload: sound(unpack(payload).get("audio"), sizes)
        )
        self._sizes = sizes
        has = [np.asarray(manifest["parts"].str.contains(part), np.uint8) for part in PARTS]
        self.has_image, self.has_audio = has

    def __len__(self) -> int:
        return len(self._pictures)

    def take(self, positions: NDArray[np.int64]) -> Inputs:
        """Those rows of the manifest."""
        clips = [clip(samples, self._sizes) for samples in self._sounds.take(positions)]
        return Inputs(
            self._pictures.take(positions), np.stack(clips), self.has_image[positions], self.has_audio[positions]
        )
