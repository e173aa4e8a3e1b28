"""From a trained detector to its program, checked to find the same in real pictures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.errors import RatchetError
from models.common.kind import AnyTrainJob
from models.common.objects.average_precision import box_iou
from models.common.objects.dataset import canvas_of, canvases
from models.common.objects.detector import SinglePicture
from models.common.program.export import export_graph
from models.common.program.program import Program, ProgramSpec

PARITY_EXAMPLES = 16  # validation pictures that network and program must agree on
TOLERANCE = 1e-3  # of a score, and of the picture's width for a box
MASK_TOLERANCE = 1e-2  # of a cell's probability: a box moved by a thousandth moves the cells
MAX_UNMATCHED_SHARE = 0.02  # share of objects that may be in one answer alone
SCORE_TIE = 0.01  # of a score: objects that are as sure as each other
SAME_IOU, DISPLACED_IOU = 0.98, 0.3  # IoU of a box computed twice; of boxes of which one may have displaced the other

Answer = Mapping[str, NDArray[Any]]  # boxes (D, 4), scores (D,), labels (D,), perhaps masks (D, S, S)


def export_detector(job: AnyTrainJob, network: SinglePicture, kind: str, labels: tuple[str, ...]) -> dict[str, float]:
    """Writes job.out/program, its choice among overlapping objects included, and gives what `parity` says of it."""
    canvas, rows = canvas_of(job.data), job.rows("val").head(PARITY_EXAMPLES)
    spec = ProgramSpec(
        kind=kind,
        labels=labels,
        input=asdict(canvas) | {"score_threshold": job.data.score_threshold},
        provenance=dict(job.provenance),
    )
    pictures = canvases(rows, job.batches, job.home, canvas).take(np.arange(len(rows)))
    write_detector(network, pictures[:1], spec, job.out / "program")
    return parity(network, Program(job.out / "program"), pictures)


def write_detector(network: SinglePicture, picture: NDArray[np.uint8], spec: ProgramSpec, folder: Path) -> None:
    """program.onnx and program.json in `folder`; picture: (1, H, W, 3)."""
    dynamic = {name: {0: "detections"} for name in network.outputs}
    with torch.inference_mode():
        export_graph(network, {"images": torch.from_numpy(picture)}, network.outputs, dynamic, spec, folder)


def parity(network: SinglePicture, program: Program, pictures: NDArray[np.uint8]) -> dict[str, float]:
    """How far the program's boxes, scores and masks are from the network's on real pictures, as summary.json has it.

    Raises RatchetError where they are not the same but for close calls.
    """
    total = _Difference()
    for picture in pictures:
        with torch.inference_mode():
            tensors = network(torch.from_numpy(picture[None]))
        network_answer = {name: tensor.numpy() for name, tensor in zip(network.outputs, tensors, strict=True)}
        total = total.merged_with(compare(_with_area(network_answer), _with_area(program.run(images=picture[None]))))
    allowed = TOLERANCE * pictures.shape[2]
    agree = total.boxes <= allowed and total.scores <= TOLERANCE and total.masks <= MASK_TOLERANCE
    if not agree or total.unmatched > 1 + MAX_UNMATCHED_SHARE * total.objects:
        masks = f" masks by up to {total.masks:.2g}," if "masks" in network.outputs else ""
        raise RatchetError(
            f"The exported program differs from the network: boxes by up to {total.boxes:.2g} px, scores by up to"
            f" {total.scores:.2g},{masks} {total.unmatched} of {total.objects} objects are in one answer alone."
            " It was not kept; report this"
        )
    return {
        "parity_max_abs_diff": total.scores,
        "parity_box_px": total.boxes,
        **({"parity_mask": total.masks} if "masks" in network.outputs else {}),
        "parity_objects": total.objects / 2,
        "parity_alone": total.unmatched,
        "parity_examples": len(pictures),
    }


@dataclass(frozen=True)
class _Difference:
    """Largest differences of objects that two answers share, and how many objects of either are in one alone."""

    boxes: float = 0.0  # px
    scores: float = 0.0
    masks: float = 0.0
    unmatched: int = 0
    objects: int = 0  # in both answers together

    def merged_with(self, other: "_Difference") -> "_Difference":
        """Of two pictures together."""
        return _Difference(
            float(np.maximum(self.boxes, other.boxes)),  # of NaN and a number NaN, as max() would not have it
            float(np.maximum(self.scores, other.scores)),
            float(np.maximum(self.masks, other.masks)),
            self.unmatched + other.unmatched,
            self.objects + other.objects,
        )


def compare(answer: Answer, other: Answer) -> _Difference:
    """Two answers to the same picture.

    Of two objects as sure as each other that overlap, or that come last in an answer that is full, either may be kept:
    what has such a twin is not alone.
    """
    no_crowd = np.zeros(len(other["scores"]), bool)
    overlaps = box_iou(answer["boxes"].astype(float), other["boxes"].astype(float), no_crowd)
    similar_score = np.abs(answer["scores"][:, None] - other["scores"][None]) <= SCORE_TIE
    overlaps = np.where((answer["labels"][:, None] == other["labels"][None]) & similar_score, overlaps, 0.0)
    matches, other_matches = np.nonzero(overlaps > SAME_IOU)
    largest = {
        name: float(np.abs(answer[name][matches] - other[name][other_matches]).max(initial=0))
        for name in ("boxes", "scores", "masks")
        if name in answer
    }
    unmatched = _count_unmatched(answer, other, overlaps) + _count_unmatched(other, answer, overlaps.T)
    return _Difference(**largest, unmatched=unmatched, objects=len(answer["scores"]) + len(other["scores"]))


def _count_unmatched(answer: Answer, other: Answer, overlaps: NDArray[np.float64]) -> int:
    last = other["scores"].min(initial=np.inf) + SCORE_TIE
    return int(((overlaps.max(axis=1, initial=0) < DISPLACED_IOU) & (answer["scores"] > last)).sum())


def _with_area(answer: Answer) -> Answer:
    """Without boxes of no width or height, of which many are alike; nobody is answered them either."""
    has_area = (answer["boxes"][:, 2:] > answer["boxes"][:, :2]).all(axis=1)
    return {name: values[has_area] for name, values in answer.items()}
