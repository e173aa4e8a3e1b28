"""The overlaps (IoU) from which on a detection counts as right. Light: metrics are named without NumPy."""

HALF = (0.5,)
COCO = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # .5, .55, … .95


def known_thresholds(thresholds: tuple[float, ...]) -> list[int]:
    """The place of each among COCO's ten: the bit that a score table keeps of it."""
    return [COCO.index(threshold) for threshold in thresholds]
