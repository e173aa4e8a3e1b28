"""Pictures of a manifest on the network's canvas, decoded once, and what is in them; training and evaluation both take
them from here."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common import images
from models.common.annotations import Annotation, parse_target
from models.common.batches import payloads
from models.common.canvas import Canvas
from models.common.decoded import Decoded, decoded
from models.object_detection import pictures


def pixels(manifest: pd.DataFrame, batches: Path, home: Path, canvas: Canvas) -> Decoded:
    """The manifest's pictures, (height, width, 3) uint8 RGB each, by position. UserError where one does not decode."""
    code = hashlib.sha256(Path(images.__file__).read_bytes() + Path(pictures.__file__).read_bytes()).hexdigest()[:8]
    fitted = "whole" if canvas.keep_aspect else "stretched"

    def convert(payload: bytes) -> NDArray[np.uint8]:
        return canvas.laid(payload)[0]

    name = f"{fitted}{canvas.width}x{canvas.height}-{code}"
    return decoded(batches, manifest, home, name, (canvas.height, canvas.width, 3), convert)


def annotations(manifest: pd.DataFrame, batches: Path) -> list[Annotation]:
    """What is in the manifest's pictures, in its order."""
    wanted: dict[str, dict[int, Annotation]] = {}
    for name, rows in manifest.groupby("batch")["row"]:
        places = set(rows)
        targets = enumerate(payloads(batches, str(name), "target"))
        wanted[str(name)] = {row: parse_target(target) for row, target in targets if row in places}
    return [wanted[batch][row] for batch, row in zip(manifest["batch"], manifest["row"], strict=True)]
