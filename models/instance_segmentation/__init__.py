"""Instance segmentation: each object in a picture with the pixels that it covers, by Mask R-CNN.

This module is the kind's face (models/common/kind.py says what a kind offers); torch is imported only to train.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.common.kind import Example, Expectation, ReportJob, ReportSection, TrainJob, Truth
from models.common.objects.metrics import MAP, MAP50
from models.instance_segmentation.params import InstanceData, InstanceTrain

if TYPE_CHECKING:
    import pandas as pd

    from models.common.data.sources import Source

Data = InstanceData
Train = InstanceTrain
TRUTH: Truth = "target"
METRICS = (MAP, MAP50)
COLUMNS = {
    "width": "int32",
    "height": "int32",
    "phash": "uint64",
    "objects": "int32",
    "classes": "string",
    "smallest_object": "float32",
}
FIELDS = {"image": "image/*"}
SERVICE_MODULES = (
    "models",
    "models.common",
    "models.common.image.letterbox",
    "models.common.errors",
    "models.common.image.decoding",
    "models.common.objects.masks",
    "models.common.program.program",
    "models.common.program.serving",
    "models.instance_segmentation.agreeing",
    "models.instance_segmentation.objects",
    "models.instance_segmentation.predictor",
)
SERVICE_PACKAGES = ("onnxruntime", "numpy", "pillow")


def examples(source: "Source", data: InstanceData) -> Iterator[Example]:
    """Pictures with the masks of their objects, annotated as COCO does it."""
    from models.instance_segmentation import reading

    return reading.examples(source, data)


def inspect(example: Example, data: InstanceData) -> dict[str, Any]:
    """Size and perceptual hash of a picture that decodes whole, and how many objects of which classes it has."""
    from models.instance_segmentation import reading

    return reading.inspect(example, data)


def expectations(data: InstanceData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates across splits, objects a picture, classes in every split, drift of object sizes."""
    from models.instance_segmentation import reading

    return reading.expectations(data, manifest)


def train(job: TrainJob) -> None:
    """Trains a network and writes the program."""
    from models.instance_segmentation import training

    training.train(job)


def score(program: Path, manifest: "pd.DataFrame", batches: Path, home: Path) -> "pd.DataFrame":
    """One row per picture: what was found in it, and what of that is right."""
    from models.instance_segmentation import scoring

    return scoring.score(program, manifest, batches, home)


def summary(table: "pd.DataFrame", labels: tuple[str, ...]) -> dict[str, float]:
    """mAP of masks, mAP50, mAP75, recall and precision of what the service answers, AP50 by class."""
    from models.instance_segmentation import scoring

    return scoring.summary(table, labels)


def report(job: ReportJob) -> list[ReportSection]:
    """Precision and recall by class, and the worst pictures with their masks, those that are there and those found."""
    from models.instance_segmentation import report

    return report.sections(job)


def service() -> str:
    """Source of the Bento's service."""
    return (Path(__file__).parent / "bento_service.py").read_text()


def form(payload: bytes) -> dict[str, bytes]:
    """One photo."""
    return {"image": payload}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001
    """The objects that the service answers: label, score, box and mask of each, those that are sure enough."""
    size = [int(row["picture_height"]), int(row["picture_width"])]
    columns = zip(row["detected_label"], row["detected_score"], row["detected_mask"], strict=True)
    objects = [
        {
            "label": str(label),
            "score": float(score),
            "box": list(map(float, row["detected_box"][4 * place : 4 * place + 4])),
            "mask": {"size": size, "counts": str(mask)},
        }
        for place, (label, score, mask) in enumerate(columns)
        if score >= row["threshold"]
    ]
    return {"threshold": float(row["threshold"]), "objects": objects}


def differs(expected: Mapping[str, Any], answer: Mapping[str, Any], tolerance: float) -> str:
    """How an answer differs from what was expected; see agreeing.py."""
    from models.instance_segmentation import agreeing

    return agreeing.differs(expected, answer, tolerance)
