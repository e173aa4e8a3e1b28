"""The learning rate over a training: warm-up, stable, decay (Hägele et al., NeurIPS 2024), whatever ends the search."""

from models.common.params import TrainParams


class Schedule:
    """Share of the peak rate at a time, in epochs from 0.

    It rises from nothing, stays, and comes down to nothing over the last stretch. Where validation stops improving that
    stretch begins at once: the search ends early, the way down never does.
    """

    def __init__(self, train: TrainParams, head_epochs: int) -> None:
        """head_epochs: how many the head learns alone; what opens then rises from nothing, too."""
        self._warmup, self._head_epochs = train.warmup_epochs, head_epochs
        self._length = max(1, round(train.decay_share * train.epochs))
        self.decay_from = train.epochs - self._length  # epoch

    @property
    def epochs(self) -> int:
        """How many there are in all."""
        return self.decay_from + self._length

    def decay_now(self, epoch: int) -> None:
        """The rate comes down from `epoch` on."""
        self.decay_from = min(self.decay_from, epoch)

    def factor(self, time: float) -> float:
        """Above 0 and at most 1, but 0 at the very end."""
        since_opening = time - self._head_epochs if time >= self._head_epochs else time
        rising = min(1.0, since_opening / self._warmup) if self._warmup else 1.0
        falling = min(1.0, (self.epochs - time) / self._length)
        return min(rising, falling)
