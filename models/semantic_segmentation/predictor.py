"""A program behind its own preprocessing: the bytes of a photo in, the class of each pixel out. Needs no torch."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.common.image.decoding import decode_whole, open_image, shown_size
from models.common.program import answers
from models.common.program.program import Program
from models.semantic_segmentation.masks import colours, from_base64, stretched, write_png

DIFFERING = 0.002  # share of pixels that may be of another class: where two classes are as good as equal
DIGITS = 6  # of shares and confidence


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one picture, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.labels = self._program.spec.labels
        given = self._program.spec.input
        self._size = int(given["width"]), int(given["height"])
        self._max_pixels = int(given["max_pixels"])
        shades = colours(len(self.labels)).tolist()
        self._colours = {label: f"#{bytes(shade).hex()}" for label, shade in zip(self.labels, shades, strict=True)}

    def predict(self, image: bytes) -> dict[str, Any]:
        """`mask`: PNG as base64, as large as the photo (`width`, `height`), each pixel the place of its class in
        `classes`; `shares` of the photo by class, the largest first; `confidence`: the mean over all pixels of the
        probability of their class; `colours` of the mask's palette by class.

        Raises BadExampleError saying why the bytes cannot be used as a picture.
        """
        opened = open_image(image, self._max_pixels)
        width, height = shown_size(opened)
        answer = self._program.run(images=decode_whole(opened, *self._size)[None])
        values = stretched(answer["classes"][0], width, height)
        shares = np.bincount(values.ravel(), minlength=len(self.labels)) / values.size
        return described(values, self.labels, shares.tolist(), float(answer["confidence"][0])) | {
            "classes": list(self.labels),
            "colours": self._colours,
        }


def described(values: Any, labels: tuple[str, ...], shares: list[float], confidence: float) -> dict[str, Any]:
    """The part of an answer that evaluation tells, too. `values`: (height, width) uint8."""
    ranked = sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])
    return {
        "shares": {label: round(share, DIGITS) for label, share in ranked},
        "confidence": round(confidence, DIGITS),
        "width": values.shape[1],
        "height": values.shape[0],
        "mask": base64.b64encode(write_png(values, len(labels))).decode(),
    }


def differs(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How an answer differs from what was expected; "" where it agrees but for DIFFERING of the pixels."""
    numbers = answers.differs({"confidence": expected["confidence"]}, answer, tolerance)
    shares = answers.differs({"shares": expected["shares"]}, answer, max(tolerance, DIFFERING))
    return numbers or shares or _other_mask(expected["mask"], answer.get("mask"))


def _other_mask(expected: str, answer: Any) -> str:
    try:
        ours, theirs = from_base64(expected), from_base64(answer)
    except (OSError, ValueError, TypeError):
        return "mask: no PNG as base64"
    if ours.shape != theirs.shape:
        return f"mask: {theirs.shape[1]} x {theirs.shape[0]} px instead of {ours.shape[1]} x {ours.shape[0]}"
    share = float((ours != theirs).mean())
    return f"mask: {share:.2%} of its pixels are of another class" if share > DIFFERING else ""
