"""Object detection: where things are in a picture and what they are, by torchvision's detectors or a small one."""

from models.common.image.params import PHOTO_COLUMNS
from models.common.kind import Truth
from models.common.objects.metrics import MAP, MAP50

TRUTH: Truth = "target"
METRICS = (MAP, MAP50)
COLUMNS = {
    **PHOTO_COLUMNS,
    "boxes": "int32",
    "classes": "string",
    "smallest_box": "float32",
}
