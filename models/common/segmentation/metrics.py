"""Mean intersection over union from a score table, in the form that the gate resamples. Light at import."""

from typing import TYPE_CHECKING, Any

from models.common.kind import Estimate, Metric

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

INTERSECTION, UNION, GROUND_TRUTH = "intersection:", "union:", "truth:"  # and a class: columns of pixels in a picture


def mean_iou(classes: tuple[str, ...] | None = None) -> Metric:
    """Of these classes, or of all: the mean over those that occur, in truth or answers, of IoU over all pixels.

    As torchmetrics' JaccardIndex(average="macro", ignore_index=void): pixels are added up first, then divided.
    """

    def estimate(table: "pd.DataFrame") -> Estimate:
        intersection, union = (pixel_counts(table, prefix, classes) for prefix in (INTERSECTION, UNION))

        def value(weights: "NDArray[np.float64]") -> "NDArray[np.float64]":
            return mean_of_ratios(weights @ intersection, weights @ union)

        return value

    return Metric("mean_iou", estimate=estimate, of_classes=mean_iou)


def known_classes(table: "pd.DataFrame") -> tuple[str, ...]:
    """Classes that a score table has columns of."""
    return tuple(str(name).removeprefix(INTERSECTION) for name in table if str(name).startswith(INTERSECTION))


def pixel_counts(table: "pd.DataFrame", prefix: str, classes: tuple[str, ...] | None = None) -> "NDArray[np.float64]":
    """(pictures, classes); a class that the table does not have is nowhere in it."""
    import numpy as np

    columns = [f"{prefix}{name}" for name in (known_classes(table) if classes is None else classes)]
    return np.asarray(table.reindex(columns=columns, fill_value=0).to_numpy(np.float64))


def class_ious(table: "pd.DataFrame") -> dict[str, float]:
    """Class -> IoU over all pictures' pixels, of the classes that occur."""
    intersection, union = (pixel_counts(table, prefix).sum(axis=0) for prefix in (INTERSECTION, UNION))
    return {
        name: float(overlap / total)
        for name, overlap, total in zip(known_classes(table), intersection, union, strict=True)
        if total > 0
    }


def mean_of_ratios(numerators: "NDArray[Any]", denominators: "NDArray[Any]") -> "NDArray[np.float64]":
    """(R, C) and (R, C) -> (R,): the mean over the classes that have any pixel below; NaN where none has."""
    import numpy as np

    defined = denominators > 0
    ratios = np.where(defined, numerators / np.where(defined, denominators, 1), 0.0)
    count = defined.sum(axis=1)
    return np.asarray(np.where(count > 0, ratios.sum(axis=1) / np.maximum(count, 1), np.nan), np.float64)
