"""Speech commands: one label for one short recording, by a small network of our own or a torchaudio bundle."""

from models.common.audio.params import AUDIO_COLUMNS
from models.common.classification.accuracy import ACCURACY, LOG_LOSS
from models.common.kind import Truth

TRUTH: Truth = "class"
COLUMNS = AUDIO_COLUMNS
METRICS = (ACCURACY, LOG_LOSS)
