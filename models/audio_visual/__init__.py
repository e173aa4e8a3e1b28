"""Pictures with sound: one label for a photo and a recording together, either of which may be missing."""

from models.common.audio.params import AUDIO_COLUMNS
from models.common.classification.accuracy import ACCURACY, LOG_LOSS
from models.common.image.params import PHOTO_COLUMNS
from models.common.kind import Metric, Truth

TRUTH: Truth = "class"
COLUMNS = {"parts": "string", **PHOTO_COLUMNS, **AUDIO_COLUMNS}
METRICS = (
    ACCURACY,
    Metric("accuracy_image_only", numerator="correct_image", denominator="has_image"),
    Metric("accuracy_audio_only", numerator="correct_audio", denominator="has_audio"),
    LOG_LOSS,
)
