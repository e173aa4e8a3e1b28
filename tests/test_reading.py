"""Photos as people have them: which are taken, which are refused, and what is recorded of each."""

import base64
import io
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.common.data.near_duplicates import find_near_duplicates, has_earlier_near_duplicate
from models.common.errors import BadExampleError
from models.common.image.checks import inspect_image
from models.common.image.decoding import decode, decode_resized, open_image, upright_size
from models.common.image.letterbox import Canvas
from models.common.reporting.image import thumbnail
from models.image_classification.params import ImageData

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
    assert {"width": 60, "height": 40}.items() <= inspect_image(payload, DATA).items()
    pixels = decode(open_image(payload, DATA.max_pixels), 32).astype(int)
    assert pixels[:, 1].mean() > pixels[:, -2].mean() + 80  # bright left, dark right, in whatever mode


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    payload = saved(Image.fromarray(ramp), "PNG")
    inspect_image(payload, DATA)
    middle = decode(open_image(payload, DATA.max_pixels), 64)[32, 32, 0]
    assert 120 < middle < 136


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_what_they_can_hold_not_by_what_a_picture_holds(kind: str) -> None:
    for values in ([0, 255], [255, 256], [256, 65535], [0, 128 * 257]):
        payload = saved(Image.fromarray(np.repeat(np.array([values], np.uint16), 20, axis=0).repeat(20, axis=1)), kind)
        pixels = decode_resized(open_image(payload, DATA.max_pixels), 40, 20)
        assert pixels[10, [5, 35], 0].tolist() == [round(value / 257) for value in values]
        encoded = thumbnail(payload, 112).split("base64,")[1].split('"')[0]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        assert shown[10, [5, 35], 0].tolist() == [round(value / 257) for value in values]


@pytest.mark.parametrize(("kind", "full"), [(np.int32, 65535), (np.float32, 255)])
def test_grey_of_32_bits_is_read_as_documented(kind: type[Any], full: int) -> None:
    values = np.array([[0, full * 0.4, full, full * 2]] * 4, kind)
    pixels = decode_resized(open_image(saved(Image.fromarray(values), "TIFF"), DATA.max_pixels), 4, 4)
    assert pixels[0, :, 0].tolist() == [0, 102, 255, 255]


def test_exif_rotation_is_applied_to_size_and_pixels() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the left edge becomes the top
    payload = saved(picture(), "JPEG", exif=turned)
    assert {"width": 40, "height": 60}.items() <= inspect_image(payload, DATA).items()
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
        (saved(Image.new("1", (20_000, 20_000)), "PNG"), "20000 x 20000 px is more than the 50000000 pixels"),
        (saved(Image.new("1", (8_000, 8_000)), "PNG"), "more than the 50000000 pixels allowed"),
        (saved(picture(60, 2), "PNG"), "min_side"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "not an image"),
        (saved(picture(), "JPEG").replace(b"JFIF", b"\xff\xff\xff\xff")[:200], "image"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(BadExampleError, match=reason):
        inspect_image(payload, DATA)


def test_a_rescaled_and_recompressed_copy_is_alike_and_another_picture_is_not() -> None:
    rng = np.random.default_rng(0)
    scenes = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((320, 240), 2) for _ in range(2)]
    first, other = (inspect_image(saved(scene, "PNG"), DATA)["phash"] for scene in scenes)
    copy = inspect_image(saved(scenes[0].resize((200, 150)), "JPEG", quality=70), DATA)["phash"]
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
    found = find_near_duplicates(hashes[150:], hashes[:150], bits)
    assert (found >= 0).tolist() == near[150:, :150].any(axis=1).tolist()
    assert has_earlier_near_duplicate(hashes, bits).tolist() == [bool(near[row, :row].any()) for row in range(300)]
    assert all(near[150 + row, other] for row, other in enumerate(found) if other >= 0)


def test_no_hashes_are_like_none() -> None:
    nothing = np.array([], np.uint64)
    assert find_near_duplicates(nothing, nothing, 2).tolist() == []
    assert find_near_duplicates(np.array([1], np.uint64), nothing, 2).tolist() == [-1]
    assert has_earlier_near_duplicate(nothing, 2).tolist() == []


def test_a_png_that_breaks_off_is_refused_wherever_its_size_is_asked_for() -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)).save(whole, "PNG")
    assert upright_size(open_image(whole.getvalue(), 10_000)) == (48, 64)
    with pytest.raises(BadExampleError, match="cannot be decoded"):
        upright_size(open_image(whole.getvalue()[:2000], 10_000))
    with pytest.raises(BadExampleError, match="cannot be decoded"):
        Canvas(32, 32, True, 10_000).letterbox(whole.getvalue()[:2000])


def test_pictures_opened_in_several_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    payload, before, interval = saved(picture(), "PNG"), list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of everything
    try:
        with ThreadPoolExecutor(8) as pool:
            sizes = set(pool.map(lambda payload: open_image(payload, 10**6).size, [payload] * 2000))
    finally:
        sys.setswitchinterval(interval)
    assert sizes == {(60, 40)}
    assert warnings.filters == before


@pytest.mark.filterwarnings("error")
def test_max_pixels_is_the_only_limit() -> None:
    assert open_image(saved(Image.new("1", (14_000, 14_000)), "PNG"), 2 * 10**8).size == (14_000, 14_000)
