"""Image classification: one label for one picture, by any torchvision network or a small CNN of our own."""

from models.common.kind import Metric, Truth

TRUTH: Truth = "class"
COLUMNS = {"width": "int32", "height": "int32", "phash": "uint64"}
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("log_loss", numerator="loss", higher_is_better=False),
)
