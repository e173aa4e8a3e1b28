"""Speaker identification: who of a closed set speaks, and whether two recordings are of one voice."""

from typing import TYPE_CHECKING

from models.common.audio.params import AUDIO_COLUMNS
from models.common.classification.accuracy import ACCURACY, LOG_LOSS
from models.common.kind import Estimate, Metric, Truth

if TYPE_CHECKING:
    import pandas as pd


def _equal_error_rate(table: "pd.DataFrame") -> Estimate:
    from models.common.audio import verification  # needs NumPy, which looking a kind up must not

    return verification.equal_error_rate(table)


TRUTH: Truth = "class"
COLUMNS = AUDIO_COLUMNS
METRICS = (
    ACCURACY,
    LOG_LOSS,
    Metric("equal_error_rate", estimate=_equal_error_rate, higher_is_better=False),
)
