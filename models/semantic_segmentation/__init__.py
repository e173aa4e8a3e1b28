"""Semantic segmentation: a class for every pixel of a picture, by torchvision's heads on its backbones or a small
network of our own.
"""

from models.common.image.params import PHOTO_COLUMNS
from models.common.kind import Metric, Truth
from models.common.segmentation.metrics import mean_iou

TRUTH: Truth = "target"  # the mask: PNG as delivered, with the names of its classes put in
METRICS = (
    mean_iou(),
    Metric("pixel_accuracy", numerator="right_pixels", denominator="labelled_pixels"),
)
COLUMNS = {
    **PHOTO_COLUMNS,
    "classes": "string",  # those in the mask, void left out
    "shares": "string",  # of the pixels, by class, as JSON
    "void_share": "float64",
}
