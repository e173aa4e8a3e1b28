"""Image classification: one label for one picture, by any torchvision network or a small CNN of our own."""

from models.common.image.params import PHOTO_COLUMNS
from models.common.kind import Metric, Truth

TRUTH: Truth = "class"
COLUMNS = PHOTO_COLUMNS
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("log_loss", numerator="loss", higher_is_better=False),
)
