"""Speech recognition: the text of a recording, by networks trained with CTC."""

from models.common.audio.params import AUDIO_COLUMNS
from models.common.kind import Metric, Truth

TRUTH: Truth = "text"
COLUMNS = dict(AUDIO_COLUMNS)
METRICS = (
    Metric("word_error_rate", numerator="edits", denominator="words", higher_is_better=False),
    Metric("character_error_rate", numerator="letter_edits", denominator="letters", higher_is_better=False),
)
