"""The metrics of kinds that find objects, as METRICS holds them; light, so that looking a kind up stays so."""

from typing import TYPE_CHECKING

from models.common.kind import Estimate, Metric
from models.common.objects.thresholds import COCO, HALF

if TYPE_CHECKING:
    import pandas as pd


def mean_average_precision(
    name: str, thresholds: tuple[float, ...] = COCO, classes: tuple[str, ...] | None = None
) -> Metric:
    """Mean over IoU thresholds (some of COCO's ten) and over `classes` (None: all that occur) of average precision."""

    def estimate(table: "pd.DataFrame") -> Estimate:
        from models.common.objects.average_precision import average_precision

        return average_precision(thresholds, classes)(table)

    def of_classes(names: tuple[str, ...]) -> Metric:
        return mean_average_precision(name, thresholds, names)

    return Metric(name, estimate=estimate, of_classes=of_classes)


MAP = mean_average_precision("map")
MAP50 = mean_average_precision("map50", HALF)
