"""Class maps: the class number of every pixel of a picture, and what the numbers mean. No torch: it travels in Bentos.

A mask is a PNG of class numbers, as it was delivered, with one thing put in: the class names of its `classes.txt`, as a
text chunk of the PNG. So deliveries with other numberings go together: classes are matched by name. A class map is an
array of indices into the labels of a program.
"""

import base64
import colorsys
import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.common.errors import BadExampleError

ClassMap = NDArray[np.uint8]
IGNORE_INDEX = 255  # in class maps: void, neither learnt nor scored
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_SIZE = 33  # bytes: the signature and the first chunk, IHDR, which is always as long
KEYWORD = b"ratchet-classes"
GREY, PALETTE = 0, 3  # PNG's colour types
COLOUR_TYPES = {2: "colour (RGB)", 4: "grey with transparency", 6: "colour with transparency (RGBA)"}
GREY_STEP = {2: 85, 4: 17}  # bits of a grey pixel -> what PIL multiplies it with


def embed_class_names(payload: bytes, names: Sequence[str]) -> bytes:
    """A PNG with the names of its classes put in, in the place of those that it had. What is no PNG stays as it is."""
    if not payload.startswith(SIGNATURE) or len(payload) < HEADER_SIZE:
        return payload
    body = KEYWORD + b"\0\0\0\0\0" + "\n".join(names).encode()  # not compressed, no language, no translated keyword
    return payload[:HEADER_SIZE] + _chunk(b"iTXt", body) + payload[_end_of_class_names(payload) :]


def read_class_names(payload: bytes) -> tuple[str, ...]:
    """The names that `embed_class_names` put in; a class number is the index of its name. BadExampleError without."""
    end = _end_of_class_names(payload)
    if end == HEADER_SIZE:
        raise BadExampleError("the mask carries no class names, so its numbers mean nothing")
    text = payload[HEADER_SIZE + 8 + len(KEYWORD) + 5 : end - 4].decode()
    return tuple(text.split("\n"))


def decode_mask(payload: bytes, max_pixels: int) -> ClassMap:
    """(H, W) uint8 class numbers of a PNG. BadExampleError saying why it is no mask."""
    _check_header(payload, max_pixels)
    try:
        with Image.open(io.BytesIO(payload), formats=("PNG",)) as image:
            values = np.asarray(image, np.uint8)
    except Exception as error:  # truncated or damaged data makes PIL raise anything
        raise BadExampleError(f"mask cannot be decoded: {error}") from error
    bits, colour = payload[24], payload[25]
    return values // GREY_STEP[bits] if colour == GREY and bits in GREY_STEP else values


def _check_header(payload: bytes, max_pixels: int) -> None:
    if not payload:
        raise BadExampleError("mask is an empty file (0 bytes)")
    if not payload.startswith(SIGNATURE) or len(payload) < HEADER_SIZE:
        raise BadExampleError("mask is not a PNG; give class numbers as 8-bit grey or palette PNG")
    width, height, bits, colour = struct.unpack(">IIBB", payload[16:26])
    if colour in COLOUR_TYPES:
        raise BadExampleError(
            f"mask is {COLOUR_TYPES[colour]}; give class numbers as 8-bit grey or palette PNG, not colours"
        )
    if bits > 8:
        raise BadExampleError(f"mask has {bits} bits a pixel; give class numbers as 8-bit grey or palette PNG")
    if width * height > max_pixels:
        raise BadExampleError(f"mask of {width} x {height} px is more than the {max_pixels} pixels allowed")


def label_indices(names: Sequence[str], labels: Sequence[str], void: Sequence[bool]) -> ClassMap:
    """(256,) uint8: class number of a mask -> index in `labels`, IGNORE_INDEX for void and what is not among them.

    `void`: whether each of the 256 numbers is.
    """
    table = np.full(256, IGNORE_INDEX, np.uint8)
    index = {label: number for number, label in enumerate(labels)}
    for number, name in enumerate(names):
        if name in index and not void[number]:
            table[number] = index[name]
    return table


def resize_class_map(values: ClassMap, width: int, height: int) -> ClassMap:
    """(height, width): each pixel takes the class of the one whose area its centre lies in."""
    if values.shape == (height, width):
        return values
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))


def palette(classes: int) -> NDArray[np.uint8]:
    """(classes, 3) uint8 RGB, as different as hue and lightness allow, the same for the same number."""
    golden = 0.618033988749895  # steps of the golden ratio never come close to an earlier hue soon
    colours = [
        colorsys.hls_to_rgb((0.58 + golden * number) % 1, (0.55, 0.4, 0.7)[number % 3], 0.75)
        for number in range(classes)
    ]
    return np.asarray(np.round(np.array(colours).reshape(classes, 3) * 255), np.uint8)


def encode_png(values: ClassMap, classes: int) -> bytes:
    """A palette PNG of class numbers."""
    image = Image.fromarray(values, "P")
    image.putpalette(palette(classes).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=4)
    return file.getvalue()


def decode_png(payload: bytes) -> ClassMap:
    """(H, W) of what `encode_png` wrote."""
    with Image.open(io.BytesIO(payload), formats=("PNG",)) as image:
        return np.asarray(image, np.uint8)


def decode_base64(text: str) -> ClassMap:
    """(H, W) of the PNG in an answer."""
    return decode_png(base64.b64decode(text))


def _end_of_class_names(payload: bytes) -> int:
    """Where the chunk with the names ends; HEADER_SIZE where there is none."""
    present = payload[HEADER_SIZE + 4 : HEADER_SIZE + 8 + len(KEYWORD) + 1] == b"iTXt" + KEYWORD + b"\0"
    return HEADER_SIZE + 12 + int.from_bytes(payload[HEADER_SIZE : HEADER_SIZE + 4], "big") if present else HEADER_SIZE


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
