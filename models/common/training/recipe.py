"""What a training takes where params give nothing: it follows from how much data there is and what it begins with.

Small data is gone through more often and in smaller batches, so that the weights are updated often enough; trained
weights need fewer updates and smaller steps than fresh ones. docs/fine-tuning.md has what each of it is worth.
"""

import dataclasses
import math
from typing import TypeVar

from models.common.kind import AnyTrainJob
from models.common.params import TrainParams

FRESH_EPOCHS, TUNED_EPOCHS = (12, 60), (5, 30)  # fewest and most epochs, of fresh weights and of trained ones
TUNED_UPDATES = 0.5  # share of the updates that trained weights need
FRESH_RATE, TUNED_RATE = 3e-3, 1e-3  # of AdamW; SGD takes SGD_RATE times as much
SGD_RATE = 10.0
MIN_BATCH_SIZE = 4
BATCH_SIZE_OF_ROOT = 0.75  # batch size for each square root of the number of examples
AVERAGED_SHARE = 0.04  # share of all updates that the moving average looks back over
MIN_AVERAGED = 5  # updates
T = TypeVar("T", bound=TrainParams)
Job = TypeVar("Job", bound=AnyTrainJob)


def resolve_job(job: Job) -> Job:
    """The job with nothing left open in its `train`."""
    examples = len(job.rows("train"))
    return dataclasses.replace(job, train=resolve(job.train, examples, has_initial=job.initial is not None))


def resolve(train: T, examples: int, *, has_initial: bool) -> T:
    """`train` with everything that it leaves open decided, for so many training examples.

    has_initial: whether there is a file to start from; `weights: champion` is as good as `auto` where there is none.
    """
    weights = train.starting_weights(has_initial=has_initial)
    tuned = weights != "none"
    batch_size = train.batch_size or _batch_size(examples, train.MAX_BATCH_SIZE)
    steps = max(1, math.ceil(examples / batch_size))
    epochs = train.epochs or _epochs(train.UPDATES * (TUNED_UPDATES if tuned else 1.0), steps, tuned=tuned)
    rate = (TUNED_RATE if tuned else FRESH_RATE) * (SGD_RATE if train.optimizer == "sgd" else 1.0)
    decay = (
        train.ema_decay if train.ema_decay is not None else 1 - 1 / max(MIN_AVERAGED, AVERAGED_SHARE * steps * epochs)
    )
    head_first = tuned and weights in train.WEIGHT_SOURCES  # other weights have a head that knows the task already
    return train.model_copy(
        update={
            "weights": weights,
            "unfreeze": ("head_first" if head_first else "all") if train.unfreeze == "auto" else train.unfreeze,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": train.learning_rate or rate,
            "layer_decay": train.layer_decay or (0.0 if tuned else 1.0),
            "warmup_epochs": min(train.warmup_epochs, epochs / 2),
            "ema_decay": decay,
        }
    )


def _batch_size(examples: int, largest: int) -> int:
    wanted = BATCH_SIZE_OF_ROOT * math.sqrt(max(1, examples))
    return int(min(largest, max(MIN_BATCH_SIZE, 2 ** math.floor(math.log2(max(1.0, wanted))))))


def _epochs(updates: float, steps: int, *, tuned: bool) -> int:
    fewest, most = TUNED_EPOCHS if tuned else FRESH_EPOCHS
    return min(most, max(fewest, math.ceil(updates / steps)))
