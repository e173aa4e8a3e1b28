"""The metrics of classifiers, as METRICS holds them; light, so that looking a kind up stays so."""

from models.common.kind import Metric

ACCURACY = Metric("accuracy", numerator="correct", binary=True)
LOG_LOSS = Metric("log_loss", numerator="loss", higher_is_better=False)
