"""Image classification: one label for one picture, by any torchvision network or a small CNN of our own."""

from models.common.classification.accuracy import ACCURACY, LOG_LOSS
from models.common.image.params import PHOTO_COLUMNS
from models.common.kind import Truth

TRUTH: Truth = "class"
COLUMNS = PHOTO_COLUMNS
METRICS = (ACCURACY, LOG_LOSS)
