"""Object detection: where things are in a picture and what they are, by torchvision's detectors or a small one of ours.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.kind import Example, Expectation, ReportJob, ReportSection, TrainJob, Truth
from models.common.objects.metrics import MAP, MAP50
from models.object_detection import agreeing
from models.object_detection.params import DetectionData, DetectionTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = DetectionData
Train = DetectionTrain
TRUTH: Truth = "target"
METRICS = (MAP, MAP50)
COLUMNS = {
    "width": "int32",
    "height": "int32",
    "phash": "uint64",
    "boxes": "int32",
    "classes": "string",
    "smallest_box": "float32",
}
FIELDS = {"image": "image/*"}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.errors",
    "models.common.image.decoding",
    "models.common.program.program",
    "models.common.program.serving",
    "models.object_detection.agreeing",
    "models.common.image.letterbox",
    "models.object_detection.pictures",
    "models.object_detection.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "pillow")


def examples(source: "Source", data: DetectionData) -> Iterator[Example]:  # noqa: ARG001
    """Pictures annotated as Pascal VOC or COCO do it."""
    from models.object_detection import reading

    return reading.examples(source)


def inspect(example: Example, data: DetectionData) -> dict[str, Any]:
    """Size and perceptual hash of a picture that decodes whole, and how many boxes of which classes and size it has."""
    from models.object_detection import reading

    return reading.inspect(example, data)


def expectations(data: DetectionData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates across splits, boxes a picture, classes in every split, drift of box sizes."""
    from models.object_detection import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Trains a detector and writes the program."""
    from models.object_detection import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per picture: what was found in it, what of that is right, and which objects were missed."""
    from models.object_detection import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """mAP, mAP50, mAP75, recall and precision of what the service answers, by size and by class."""
    from models.object_detection import scoring

    return scoring.summary(table, labels)


def report(job: ReportJob) -> list[ReportSection]:
    """Precision and recall by class, what is missed and mistaken, sizes, the worst pictures with their boxes."""
    from models.object_detection import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One photo."""
    return {"image": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001
    """The objects that the service answers: label, score and box of each, those that are sure enough."""
    boxes = [
        list(map(float, row["detected_box"][place : place + 4])) for place in range(0, len(row["detected_box"]), 4)
    ]
    objects = [
        {"label": str(label), "score": float(score), "box": box}
        for label, score, box in zip(row["detected_label"], row["detected_score"], boxes, strict=True)
        if score >= row["threshold"]
    ]
    return {"threshold": float(row["threshold"]), "objects": objects}


differs = agreeing.differs
