"""What the service of this kind takes and must answer; common/objects/predictor.py answers. Needs no torch."""

from models.common.objects.predictor import OBJECT_SERVICE as SERVICE
from models.common.objects.predictor import ObjectPredictor as Predictor

__all__ = ["SERVICE", "Predictor"]
