"""What is recorded of photos and checked over all of them, whatever is learnt of them: sizes and how they look."""

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.common.data.drift import batch_drift, drift_expectation
from models.common.data.near_duplicates import find_near_duplicates
from models.common.errors import BadExampleError
from models.common.image.decoding import decode, open_image, upright_size
from models.common.image.params import PhotoData
from models.common.kind import Expectation

if TYPE_CHECKING:
    import pandas as pd

HASH_SIDE = 8  # rows and differences a row of the perceptual hash: 64 bits
HASH_INPUT = 32  # px: what the hash is made from; finer detail never decides
LARGE_PIXELS = 4_000_000  # pixels; larger ones are decoded one at a time, so that threads do not multiply their memory
JPEG_REDUCTION = 8  # a JPEG is decoded at an eighth of its sides, which takes far less memory
_large_image_lock = threading.Lock()


def inspect_image(payload: bytes, data: PhotoData) -> dict[str, Any]:
    """width and height in px as shown (after EXIF rotation) and the perceptual hash, from decoding it whole.

    Raises BadExampleError with the reason.
    """
    image = open_image(payload, data.max_pixels)
    width, height = upright_size(image)
    if min(width, height) < data.min_side:
        raise BadExampleError(f"{width} x {height} px; the shorter side must have at least {data.min_side} (min_side)")
    unpacked = width * height // (JPEG_REDUCTION if image.format in ("JPEG", "MPO") else 1)
    with _large_image_lock if unpacked > LARGE_PIXELS else nullcontext():
        picture = decode(image, HASH_INPUT)
    return {"width": width, "height": height, "phash": difference_hash(picture)}


def difference_hash(picture: NDArray[np.uint8]) -> int:
    """64 bits of an (N, N, 3) uint8 picture: is each of 8 x 9 grey fields brighter than its left neighbour?

    dHash (Krawetz, "Kind of like that", 2013): it survives scaling, recompression and changes of brightness.
    """
    grey = Image.fromarray(picture).convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    fields = np.asarray(grey, dtype=np.int16)
    return int.from_bytes(np.packbits(fields[:, 1:] > fields[:, :-1]).tobytes(), "big")


def photo_expectations(data: PhotoData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates across splits, drift of sizes. Adds the columns that they look at to `manifest`."""
    manifest["shorter_side"] = manifest[["width", "height"]].min(axis=1)
    manifest["pixels"] = manifest["width"].astype("int64") * manifest["height"]
    manifest["size_drift"] = batch_drift(manifest["batch"], np.log2(manifest["pixels"]).round())
    manifest["looks_like_training"] = _near_duplicates_of_training(manifest, data.near_duplicate_bits)
    between = "ExpectColumnValuesToBeBetween"
    return [
        Expectation(
            name="pictures are not too small",
            expectation=between,
            kwargs={"column": "shorter_side", "min_value": data.min_side},
            severity="block",
            remedy=f"a side is under min_side ({data.min_side} px); remove the batch or lower min_side",
        ),
        Expectation(
            name="pictures are not too large",
            expectation=between,
            kwargs={"column": "pixels", "max_value": data.max_pixels},
            severity="block",
            remedy=f"a picture has over max_pixels ({data.max_pixels}); remove the batch or raise max_pixels",
        ),
        Expectation(
            name="no near-duplicates across splits",
            expectation="ExpectColumnValuesToBeInSet",
            kwargs={"column": "looks_like_training", "value_set": [False]},
            severity="warn",
            remedy="a test or val picture looks like a training picture, so its score may be remembered, not learnt;"
            " give pictures of one scene one group",
        ),
        drift_expectation(
            "picture sizes as before",
            "size_drift",
            data.max_drift,
            "the spread of picture sizes",
            "see whether it comes from another camera or was scaled",
        ),
    ]


def _near_duplicates_of_training(manifest: "pd.DataFrame", bits: int) -> NDArray[np.bool_]:
    hashes = manifest["phash"].to_numpy(np.uint64)
    training = manifest["split"].to_numpy() == "train"
    near_duplicate = np.zeros(len(manifest), bool)
    near_duplicate[~training] = find_near_duplicates(hashes[~training], hashes[training], bits) >= 0
    return near_duplicate
