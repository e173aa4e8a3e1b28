"""Params that every kind on photos shares: which are taken, and how they are varied in training."""

from pydantic import Field

from models.common.params import DataParams, Section

# Recorded of each photo in a batch: column -> pyarrow type
PHOTO_COLUMNS = {
    "width": "int32",  # px, as shown
    "height": "int32",
    "phash": "uint64",  # perceptual hash
}
BUILTIN_NETWORKS = {"small_cnn": 2, "resnet9": 1}  # our own for little pictures: how many times the stem halves them


class PhotoData(DataParams):
    """The `data` section: which pictures are refused, and which are taken for copies of another."""

    max_pixels: int = Field(default=50_000_000, ge=64)  # of one picture as delivered; more is quarantined
    min_side: int = Field(default=4, ge=1)  # px; smaller pictures are quarantined
    near_duplicate_bits: int = Field(default=2, ge=0, le=8)  # differing bits of the 64-bit perceptual hash


class ImageAugment(Section):
    """Random changes to training pictures, applied to a whole batch at once on the device. 0 or false: off."""

    crop: float = Field(default=0.125, ge=0, le=0.5)  # shift by up to this share of the side, edges reflected
    scale: float = Field(default=0.0, ge=0, lt=1)  # zoom in by up to this share
    horizontal_flip: bool = False  # off: digits, letters and road signs do not survive it
    rotate: float = Field(default=0.0, ge=0, le=180)  # degrees, either way
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    erase: float = Field(default=0.0, ge=0, le=1)  # share of pictures that lose a random rectangle
