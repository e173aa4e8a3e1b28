"""Semantic segmentation: a class for every pixel of a picture, by torchvision's heads on its backbones or a small
network of our own.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.kind import Example, Expectation, Metric, ReportJob, ReportSection, TrainJob, Truth
from models.semantic_segmentation.metrics import mean_iou
from models.semantic_segmentation.params import SegmentationData, SegmentationTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = SegmentationData
Train = SegmentationTrain
TRUTH: Truth = "target"  # the mask: PNG as delivered, with the names of its classes put in
METRICS = (
    mean_iou(),
    Metric("pixel_accuracy", numerator="right_pixels", denominator="labelled_pixels"),
)
COLUMNS = {
    "width": "int32",
    "height": "int32",
    "phash": "uint64",
    "classes": "string",  # those in the mask, void left out
    "shares": "string",  # of the pixels, by class, as JSON
    "void_share": "float64",
}
FIELDS = {"image": "image/*"}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.program.answers",
    "models.common.errors",
    "models.common.image.decoding",
    "models.common.program.program",
    "models.common.program.serving",
    "models.semantic_segmentation.masks",
    "models.semantic_segmentation.pictures",
    "models.semantic_segmentation.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "pillow")


def examples(source: "Source", data: SegmentationData) -> Iterator[Example]:
    """Pictures in `images/` with masks of the same names in `masks/`, and a classes.txt."""
    from models.semantic_segmentation import reading

    return reading.examples(source, data)


def inspect(example: Example, data: SegmentationData) -> dict[str, Any]:
    """Width, height, perceptual hash, classes and their shares of a picture and a mask that fit together."""
    from models.semantic_segmentation import reading

    return reading.inspect(example, data)


def expectations(data: SegmentationData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates across splits, void, drift of sizes and of the shares of classes."""
    from models.semantic_segmentation import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Fine-tunes a network and writes the program."""
    from models.semantic_segmentation import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per picture: pixels right and labelled, intersection and union by class, the mask answered."""
    from models.semantic_segmentation import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """Mean IoU, pixel accuracy, mean class accuracy, the IoU of each class."""
    from models.semantic_segmentation import scoring

    return scoring.summary(table, labels)


def report(job: ReportJob) -> list[ReportSection]:
    """IoU by class, what is taken for what, masks over the worst pictures."""
    from models.semantic_segmentation import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One photo."""
    return {"image": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The mask, the share of every class and the confidence."""
    from models.semantic_segmentation.masks import from_png, stretched
    from models.semantic_segmentation.predictor import described

    values = stretched(from_png(row["mask"]), int(row["width"]), int(row["height"]))
    return described(values, labels, list(map(float, row["shares"])), float(row["confidence"]))


def differs(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How an answer differs; single pixels may."""
    from models.semantic_segmentation import predictor

    return predictor.differs(expected, answer, tolerance)
