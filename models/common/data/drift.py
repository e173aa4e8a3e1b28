"""How far one delivery of data moved the whole: the population stability index."""

from typing import TYPE_CHECKING, Any

import numpy as np

from models.common.kind import Expectation

if TYPE_CHECKING:
    import pandas as pd

MIN_SHARE = 1e-4  # share of a bin that is empty on one side: the index stays finite and a new class still shows


def stability_index(before: "pd.Series[int]", after: "pd.Series[int]") -> float:
    """PSI of two tables of counts by value: sum((q - p) * ln(q / p)) over their shares.

    Under 0.1 nothing happened, over 0.2 the population is another one (Siddiqi, "Credit Risk Scorecards", 2006).
    """
    import pandas as pd

    counts = pd.concat([before, after], axis=1).fillna(0)
    shares = (counts / counts.sum()).clip(lower=MIN_SHARE).to_numpy()
    return float(((shares[:, 1] - shares[:, 0]) * np.log(shares[:, 1] / shares[:, 0])).sum())


def batch_drift(batch: "pd.Series[str]", values: "pd.Series[Any]") -> "pd.Series[float]":
    """Per row, how far its batch moved the distribution of `values`: all batches against all the others.

    What the newest batch scores is the drift from the data version before it. No order of batches is assumed, since
    files alone tell none: two clones may have added theirs in either.
    """
    import pandas as pd

    return drift_of_table(batch, pd.crosstab(values, batch))


def drift_of_table(batch: "pd.Series[str]", table: "pd.DataFrame") -> "pd.Series[float]":
    """The same of counts that were made already: a row for each value, a column for each batch."""
    total = table.sum(axis=1)
    drift = {name: stability_index(total - table[name], total) if len(table.columns) > 1 else 0.0 for name in table}
    return batch.map(drift).astype(float)


def drift_expectation(name: str, column: str, limit: float, spread: str, advice: str) -> Expectation:
    """Warns of a batch whose `column` (see batch_drift) is over `limit`, data.max_drift.

    spread: what it shifts, "the spread of durations". advice: what to see to then.
    """
    return Expectation(
        name=name,
        expectation="ExpectColumnValuesToBeBetween",
        kwargs={"column": column, "max_value": limit},
        severity="warn",
        remedy=f"a batch shifts {spread} by over max_drift (PSI {limit}) from the data version without it; {advice}",
    )
