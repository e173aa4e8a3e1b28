"""A program behind its own preprocessing: the bytes of a photo in, the class of each pixel out. Needs no torch."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.common.program import answers
from models.common.program.program import Program
from models.common.program.service import Service, one_file
from models.common.segmentation.class_maps import (
    ClassMap,
    decode_base64,
    decode_png,
    encode_png,
    palette,
    resize_class_map,
)
from models.semantic_segmentation.preprocessing import resized_with_size

MAX_DIFFERING_SHARE = 0.002  # share of pixels that may be of another class: where two classes are as good as equal
DIGITS = 6  # of shares and confidence


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one picture, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.labels = self._program.spec.labels
        settings = self._program.spec.input
        self._size = int(settings["width"]), int(settings["height"])
        self._max_pixels = int(settings["max_pixels"])
        colours = palette(len(self.labels)).tolist()
        self._colours = {label: f"#{bytes(colour).hex()}" for label, colour in zip(self.labels, colours, strict=True)}

    def predict(self, image: bytes) -> dict[str, Any]:
        """Mask (PNG as base64) of one photo (JPEG, PNG, WebP, BMP, TIFF, GIF), and the share of each class.

        `mask` is as large as the photo (`width`, `height`), each pixel the index of its class in `classes`; `shares` of
        the photo by class, the largest first; `confidence`: the mean over all pixels of the probability of their class;
        `colours` of the mask's palette by class.

        Raises BadExampleError saying why the bytes cannot be used as a picture.
        """
        pixels, size = resized_with_size(image, *self._size, self._max_pixels)
        outputs = self._program.run(images=pixels[None])
        values = resize_class_map(outputs["classes"][0], *size)
        shares = np.bincount(values.ravel(), minlength=len(self.labels)) / values.size
        return mask_answer(values, self.labels, shares.tolist(), float(outputs["confidence"][0])) | {
            "classes": list(self.labels),
            "colours": self._colours,
        }


def mask_answer(values: ClassMap, labels: tuple[str, ...], shares: list[float], confidence: float) -> dict[str, Any]:
    """The part of an answer that follows from a row of the score table, too. `values`: (height, width) uint8."""
    ranked = sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])
    return {
        "shares": {label: round(share, DIGITS) for label, share in ranked},
        "confidence": round(confidence, DIGITS),
        "width": values.shape[1],
        "height": values.shape[0],
        "mask": base64.b64encode(encode_png(values, len(labels))).decode(),
    }


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """What must be answered to the photo of a score table's row: its mask, the share of every class, the confidence."""
    values = resize_class_map(decode_png(row["mask"]), int(row["width"]), int(row["height"]))
    return mask_answer(values, labels, list(map(float, row["shares"])), float(row["confidence"]))


def differs(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How an answer differs from what was expected; "" where it agrees but for MAX_DIFFERING_SHARE of the pixels."""
    numbers = answers.differs({"confidence": expected["confidence"]}, answer, tolerance)
    shares = answers.differs({"shares": expected["shares"]}, answer, max(tolerance, MAX_DIFFERING_SHARE))
    return numbers or shares or _mask_differs(expected["mask"], answer.get("mask"))


def _mask_differs(expected: str, answer: Any) -> str:
    try:
        expected_mask, answered_mask = decode_base64(expected), decode_base64(answer)
    except (OSError, ValueError, TypeError):
        return "mask: no PNG as base64"
    if expected_mask.shape != answered_mask.shape:
        (height, width), (expected_height, expected_width) = answered_mask.shape, expected_mask.shape
        return f"mask: {width} x {height} px instead of {expected_width} x {expected_height}"
    share = float((expected_mask != answered_mask).mean())
    return f"mask: {share:.2%} of its pixels are of another class" if share > MAX_DIFFERING_SHARE else ""


SERVICE = Service(Predictor, {"image": "image/*"}, one_file("image"), expected, differs)
