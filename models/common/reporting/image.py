"""Pictures in a report, all inside the page. Needs no torch."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.common.image.decoding import open_image, rgb

TINY = 48  # px; smaller pictures are enlarged without smoothing, as the network sees them
MAX_PIXELS = 2**29  # the picture was checked when it was added


def thumbnail(payload: bytes, longest: int) -> str:
    """An <img> of a photo, its longer side at most `longest` px."""
    image = ImageOps.exif_transpose(open_image(payload, MAX_PIXELS))
    tiny = max(image.size) < TINY
    image.thumbnail((longest, longest))
    out, kind = io.BytesIO(), "png" if tiny else "jpeg"
    rgb(image).save(out, kind, quality=82)
    return f'<img class="{"tiny" if tiny else ""}" alt="" src="{data_uri(out.getvalue(), f"image/{kind}")}">'


def jpeg_uri(picture: NDArray[np.uint8]) -> str:
    """What an image's src or href may be: (H, W, 3) RGB as JPEG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "jpeg", quality=82)
    return data_uri(out.getvalue(), "image/jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """A file inside the page; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
