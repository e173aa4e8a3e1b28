"""Photos as people have them: which are taken, which are refused, and what is recorded of each."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.common.data.near_duplicates import alike, alike_earlier
from models.common.errors import BadExampleError
from models.common.image.decoding import decode, open_image, shown_size
from models.common.image.letterbox import Canvas
from models.image_classification.params import ImageData
from models.image_classification.reading import inspect

DATA = ImageData(image_size=32)


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    """A bright left third, so that turning it shows."""
    image = Image.new("RGB", (width, height), (20, 30, 40))
    ImageDraw.Draw(image).rectangle((0, 0, width // 3, height), fill=(250, 200, 60))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("L", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"),
     ("1", "PNG"), ("RGB", "WEBP"), ("RGB", "BMP"), ("LA", "PNG")],
)  # fmt: skip
def test_every_still_picture_is_decoded_to_what_it_shows(mode: str, kind: str) -> None:
    payload = saved(picture(mode=mode), kind)
    assert {"width": 60, "height": 40}.items() <= inspect(payload, DATA).items()
    pixels = decode(open_image(payload, DATA.max_pixels), 32).astype(int)
    assert pixels[:, 1].mean() > pixels[:, -2].mean() + 80  # bright left, dark right, in whatever mode


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    payload = saved(Image.fromarray(ramp), "PNG")
    inspect(payload, DATA)
    middle = decode(open_image(payload, DATA.max_pixels), 64)[32, 32, 0]
    assert 120 < middle < 136


def test_exif_rotation_is_applied_to_size_and_pixels() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the left edge becomes the top
    payload = saved(picture(), "JPEG", exif=turned)
    assert {"width": 40, "height": 60}.items() <= inspect(payload, DATA).items()
    pixels = decode(open_image(payload, DATA.max_pixels), 32).astype(int)
    assert pixels[1].mean() > pixels[-2].mean() + 80


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am a text", "not an image"),
        (saved(picture(300, 200), "JPEG")[:-300], "cannot be decoded"),
        (saved(picture(300, 300), "PNG")[:-200], "cannot be decoded"),
        (saved(picture(), "GIF", save_all=True, append_images=[picture(mode="L")]), "animated"),
        (saved(picture(), "TIFF", save_all=True, append_images=[picture()]), "multi-page"),
        (saved(Image.new("1", (20_000, 20_000)), "PNG"), "too many pixels"),
        (saved(Image.new("1", (8_000, 8_000)), "PNG"), "more than the 50000000 pixels allowed"),
        (saved(picture(60, 2), "PNG"), "min_side"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "not an image"),
        (saved(picture(), "JPEG").replace(b"JFIF", b"\xff\xff\xff\xff")[:200], "image"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(BadExampleError, match=reason):
        inspect(payload, DATA)


def test_a_rescaled_and_recompressed_copy_is_alike_and_another_picture_is_not() -> None:
    rng = np.random.default_rng(0)
    scenes = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((320, 240), 2) for _ in range(2)]
    first, other = (inspect(saved(scene, "PNG"), DATA)["phash"] for scene in scenes)
    copy = inspect(saved(scenes[0].resize((200, 150)), "JPEG", quality=70), DATA)["phash"]
    assert (first ^ copy).bit_count() <= DATA.near_duplicate_bits
    assert (first ^ other).bit_count() > 10


@pytest.mark.parametrize("bits", [0, 1, 2, 5, 8])
def test_the_fast_search_finds_what_comparing_all_pairs_finds(bits: int) -> None:
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for _ in range(bits + 2):  # many near and many just not near enough
        some = rng.random(300) < 0.5
        hashes[150:] = np.where(
            some[150:], hashes[150:] ^ (np.uint64(1) << rng.integers(0, 64, 150, dtype=np.uint64)), hashes[:150]
        )
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= bits
    assert (alike(hashes[150:], hashes[:150], bits) >= 0).tolist() == near[150:, :150].any(axis=1).tolist()
    assert alike_earlier(hashes, bits).tolist() == [bool(near[row, :row].any()) for row in range(300)]
    found = alike(hashes[150:], hashes[:150], bits)
    assert all(near[150 + row, other] for row, other in enumerate(found) if other >= 0)


def test_no_hashes_are_like_none() -> None:
    nothing = np.array([], np.uint64)
    assert alike(nothing, nothing, 2).tolist() == []
    assert alike(np.array([1], np.uint64), nothing, 2).tolist() == [-1]
    assert alike_earlier(nothing, 2).tolist() == []


def test_a_png_that_breaks_off_is_refused_wherever_its_size_is_asked_for() -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)).save(whole, "PNG")
    assert shown_size(open_image(whole.getvalue(), 10_000)) == (48, 64)
    with pytest.raises(BadExampleError, match="cannot be decoded"):
        shown_size(open_image(whole.getvalue()[:2000], 10_000))
    with pytest.raises(BadExampleError, match="cannot be decoded"):
        Canvas(32, 32, True, 10_000).letterbox(whole.getvalue()[:2000])
