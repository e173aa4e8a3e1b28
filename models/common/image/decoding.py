"""From the bytes of a photo to the uint8 square that a program takes: the only image decoding there is.

Validation, the training cache, evaluation and the service all call these two functions, so none can differ.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from models.common.errors import BadExampleError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # JPEG brings MPO, what phones store two pictures in
ORIENTATION = 0x0112  # EXIF
ROTATED = (5, 6, 7, 8)  # values of it that swap width and height
# `max_pixels` of open_image is the limit, on the header too. Pillow's own would have to be silenced for each picture,
# and warnings.catch_warnings is not safe in threads: it leaves its filter in place for good.
Image.MAX_IMAGE_PIXELS = None
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height, px, as a picture is shown: after the rotation that its EXIF data asks for.

    Raises BadExampleError where that data cannot be read: a PNG may have it behind its pixels.
    """
    width, height = image.size
    try:
        rotated = image.getexif().get(ORIENTATION) in ROTATED
    except Exception as error:  # truncated or damaged data makes PIL raise anything
        raise BadExampleError(f"cannot be decoded: {error}") from error
    return (height, width) if rotated else (width, height)


def open_image(payload: bytes, max_pixels: int) -> Image.Image:
    """The picture in `payload`, not yet decoded. Raises BadExampleError saying why it cannot be one.

    Reads the header alone, so a decompression bomb is refused by its stated size before it is unpacked.
    """
    if not payload:
        raise BadExampleError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(payload), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadExampleError(f"not an image ({', '.join(FORMATS)} are read)") from error
    except Exception as error:  # a damaged header makes PIL raise anything
        raise BadExampleError(f"damaged image header: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadExampleError(f"{width} x {height} px is more than the {max_pixels} pixels allowed")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise BadExampleError(f"animated or multi-page {image.format} ({frames} frames); give one still picture")
    return image


def decode(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """`image` as (size, size, 3) uint8 RGB: upright, shorter side scaled to `size`, centre cropped.

    Raises BadExampleError where the pixels cannot be read (truncated file).
    """
    try:
        image.draft("RGB", (size, size))  # JPEG: decode at the nearest larger 1/2, 1/4, 1/8; ignored by other formats
        picture = rgb(ImageOps.exif_transpose(image))
        if picture.size != (size, size):
            picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # truncated or damaged data makes PIL raise anything
        raise BadExampleError(f"cannot be decoded: {error}") from error
    return np.asarray(picture)


def decode_resized(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """`image` as (height, width, 3) uint8 RGB: upright, stretched to this size, nothing cut off.

    Raises BadExampleError where the pixels cannot be read (truncated file).
    """
    try:
        image.draft("RGB", (max(width, height),) * 2)  # as in `decode`; square, since it may still be rotated
        picture = rgb(ImageOps.exif_transpose(image))
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # truncated or damaged data makes PIL raise anything
        raise BadExampleError(f"cannot be decoded: {error}") from error
    return np.asarray(picture)


def rgb(image: Image.Image) -> Image.Image:
    """`image` in 8-bit RGB, transparency put on white.

    Grey of more than 8 bits is scaled by what its numbers can hold, never by what one picture happens to hold: integers
    from 0 to 65535 (mode I too: older Pillows read 16-bit PNGs into it), floats from 0 to 255, as Pillow converts them.
    """
    if image.mode.startswith("I") or image.mode == "F":  # Pillow's own conversion clips, it does not scale
        values = np.asarray(image, dtype=np.float64) / (255 if image.mode == "F" else 65535)
        return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("RGB")
