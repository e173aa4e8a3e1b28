"""Speech commands: one label for one short recording, by a small network of our own or a torchaudio bundle."""

from models.common.audio.params import AUDIO_COLUMNS
from models.common.kind import Metric, Truth

TRUTH: Truth = "class"
COLUMNS = AUDIO_COLUMNS
METRICS = (
    Metric("accuracy", numerator="correct", binary=True),
    Metric("log_loss", numerator="loss", higher_is_better=False),
)
