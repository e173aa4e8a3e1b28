"""Instance segmentation: each object in a picture with the pixels that it covers, by Mask R-CNN."""

from models.common.image.params import PHOTO_COLUMNS
from models.common.kind import Truth
from models.common.objects.metrics import MAP, MAP50

TRUTH: Truth = "target"
METRICS = (MAP, MAP50)
COLUMNS = {
    **PHOTO_COLUMNS,
    "objects": "int32",
    "classes": "string",
    "smallest_object": "float32",
}
