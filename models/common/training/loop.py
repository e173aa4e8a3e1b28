"""The training loop: what every kind's learner goes through, from the first epoch to the best weights.

A plain loop and not Lightning's Trainer, which cost 7 to 9 % of a step on little pictures (docs/log.md has the
numbers). All randomness of an epoch follows from (seed, epoch), so a resumed run repeats what was interrupted.
"""

import resource
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.common.errors import RatchetError
from models.common.params import TrainParams
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints
from models.common.training.freezing import LayerGroup, freeze, head_only_epochs, trainable_groups
from models.common.training.logger import Row, TrainingLogger
from models.common.training.memory import keep_freed_memory
from models.common.training.optimizers import ExponentialMovingAverage, build_optimizer, set_learning_rate
from models.common.training.schedule import Schedule

MIN_VALIDATION = 50  # validation examples; fewer could only choose an epoch by chance
PREFETCH = 2  # batches fetched while one is learnt from
Batch = Iterator[tuple[Any, float]]  # its parts, each with its share of the examples
BUCKET = 16  # batches that are sorted by length together: enough to save padding, few enough to stay random


class Learner(Protocol):
    """What a kind brings: its network cut into groups, its examples, its loss."""

    network: nn.Module
    groups: list[LayerGroup]
    examples: int  # to train on; where they have `lengths` (an array), batches are of about one length each
    validation_examples: int

    def fetch(self, positions: NDArray[np.int64]) -> Any:
        """Those training examples, as a batch. Runs on a thread of its own, ahead of time."""

    def loss(self, batch: Any) -> Tensor:
        """Scalar loss of a batch, augmented; called in training mode, under autocast."""

    def evaluate(self) -> Row:
        """Means over the validation split, each name starting with `val_`, `val_loss` among them."""


@dataclass(frozen=True)
class TrainingResult:
    """What came of a training; the learner's network has the best epoch's weights."""

    history: list[Row]
    best_epoch: int  # from 1
    selected_by: str  # what says that it is the best
    decay_from: int  # epoch, from 1, in which the learning rate began to come down
    stopped_early: bool
    device: str
    precision: str
    peak_memory_mb: float
    accumulation: int


def fit(
    learner: Learner,
    train: TrainParams,
    monitor: str,
    device: torch.device,
    checkpoints: Checkpoints,
    logger: TrainingLogger,
    accumulation: int = 1,
) -> TrainingResult:
    """Trains for `train.epochs`, or until `monitor` (a row of `evaluate`; less is better for a loss) stops improving:
    then the learning rate comes down over a last stretch of epochs. The best epoch's weights are kept, of equal ones
    the later; where there are too few validation examples to choose by, the last one's.

    train: with nothing left open (recipe.py).
    accumulation: in how many parts a batch is learnt from, one after the other, before the weights are updated by
    all of them: 2 takes half the memory.
    Goes on from `checkpoints` where an earlier run of the same training left some.
    Raises RatchetError when the loss is no longer a finite number.
    """
    return _Training(learner, train, monitor, device, checkpoints, logger, accumulation).run()


def prefetched(fetch: Callable[[NDArray[np.int64]], Any], parts: list[NDArray[np.int64]]) -> Iterator[Any]:
    """`fetch` of each part, in order, run on a thread of its own up to PREFETCH parts before they are asked for."""
    pending: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for part in parts:
            pending.append(pool.submit(fetch, part))
            if len(pending) > PREFETCH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def bucket_by_length(
    parts: list[NDArray[np.int64]], lengths: NDArray[np.int64], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The same examples in batches of about one length each, so that little is padded: sorted within BUCKET batches."""
    batches = []
    for start in range(0, len(parts), BUCKET):
        pool = parts[start : start + BUCKET]
        joined = np.concatenate(pool)
        ends = np.cumsum([len(part) for part in pool])[:-1]
        batches += np.split(joined[np.argsort(lengths[joined], kind="stable")], ends)
    return [batches[index] for index in rng.permutation(len(batches))]


def update(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
    """One update by the gradients that are there, averaged over processes and clipped."""
    distributed.average_gradients(parameters)
    if max_grad_norm:
        nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()


def precision(train: TrainParams, device: torch.device) -> str:
    """`train.precision`, with auto resolved: bf16 where the hardware multiplies it natively, else fp32.

    On a CPU that means AMX, measured 1.2 to 2.6 times faster than fp32 from 16 px up; without it bf16 can be slower.
    """
    if train.precision != "auto":
        return train.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"


class _Training:
    def __init__(
        self,
        learner: Learner,
        train: TrainParams,
        monitor: str,
        device: torch.device,
        checkpoints: Checkpoints,
        logger: TrainingLogger,
        accumulation: int,
    ) -> None:
        self._learner, self._train, self._monitor = learner, train, monitor
        self._accumulation = accumulation
        self._device, self._checkpoints, self._logger = device, checkpoints, logger
        self._precision = precision(train, device)
        self._steps = -(-learner.examples // train.batch_size)
        self._optimizer = build_optimizer(learner.groups, train)
        self._parameters = list(learner.network.parameters())
        self._average = ExponentialMovingAverage(learner.network, train.ema_decay) if train.ema_decay else None
        self._head_epochs = head_only_epochs(train.unfreeze, self._steps, train.epochs)
        self._schedule = Schedule(train, self._head_epochs)
        self._chooses = learner.validation_examples >= MIN_VALIDATION
        self._best = -np.inf  # higher is better: a loss is negated
        self._best_epoch = 0
        self._epochs_without_gain = 0

    def run(self) -> TrainingResult:
        torch.backends.cudnn.benchmark = True  # batches are of two sizes at most
        if self._device.type == "cpu":
            keep_freed_memory()
        start = self._resume()
        epoch = start
        while epoch < self._schedule.epochs:
            row = self._epoch(epoch)
            self._save_epoch(epoch, row)
            self._logger.end_epoch(row)
            epoch += 1
        if self._best == -np.inf:
            raise RatchetError(
                f"The best epoch cannot be selected: {self._monitor} was no finite number after any of {epoch} epochs."
                " Look at the validation examples, lower train.learning_rate or choose another train.metric"
            )
        best = self._checkpoints.load("best", self._device)
        if best is None:
            raise RatchetError(f"{self._checkpoints.folder} was emptied while training ran; run again")
        self._learner.network.load_state_dict(best["network"])
        return TrainingResult(
            history=self._logger.rows,
            best_epoch=self._best_epoch,
            selected_by=self._monitor if self._chooses else "being the last",
            decay_from=self._schedule.decay_from + 1,
            stopped_early=epoch < self._train.epochs,
            device=_device_name(self._device),
            precision=self._precision,
            peak_memory_mb=_peak_memory_mb(self._device),
            accumulation=self._accumulation,
        )

    def _epoch(self, epoch: int) -> Row:
        start = time.perf_counter()
        self._logger.start_epoch(epoch + 1, self._steps)
        torch.manual_seed(self._seed(epoch))
        freeze(self._learner.network, self._learner.groups, self._trainable(epoch))
        total = torch.zeros((), device=self._device)
        for number, batch in enumerate(self._batches(epoch)):
            set_learning_rate(self._optimizer, self._schedule.factor(epoch + (number + 0.5) / self._steps))
            total += self._step(batch)
            if self._average:
                self._average.update()
            self._logger.step()
        train_loss = float(total) / self._steps  # the epoch's only wait for a GPU
        train_seconds = time.perf_counter() - start
        self._check(train_loss, epoch)
        validation = self._evaluate()
        return {
            "epoch": epoch + 1,
            "train_loss": train_loss,
            **validation,
            "learning_rate": max(group["lr"] for group in self._optimizer.param_groups),
            "seconds": time.perf_counter() - start,
            "seconds_per_step": train_seconds / self._steps,
            "examples_per_s": self._learner.examples / train_seconds,
        }

    def _step(self, batch: Batch) -> Tensor:
        """One update by the mean loss over a batch, whose parts are learnt from one after the other."""
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._device)
        for part, share in batch:
            with self._autocast():
                loss = self._learner.loss(part) * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        update(self._parameters, self._optimizer, self._train.max_grad_norm)
        return total

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Every example once, in an order of this epoch's, in batches of as equal a size as can be."""
        rng = np.random.default_rng([self._train.seed, epoch])
        parts = np.array_split(rng.permutation(self._learner.examples), self._steps)
        lengths = getattr(self._learner, "lengths", None)
        if lengths is not None:
            parts = bucket_by_length(parts, lengths, rng)
        own = [part[distributed.rank() :: distributed.world_size()] for part in parts]
        cut = [np.array_split(part, max(1, min(self._accumulation, len(part)))) for part in own]
        fetched = prefetched(self._learner.fetch, [part for parts in cut for part in parts])
        for batch, parts in zip(own, cut, strict=True):
            yield ((next(fetched), len(part) / max(1, len(batch))) for part in parts)

    def _evaluate(self) -> Row:
        distributed.share_buffers(self._learner.network)
        with self._average.applied() if self._average else nullcontext(), self._autocast(), torch.inference_mode():
            self._learner.network.eval()
            return distributed.broadcast_row(self._learner.evaluate(), self._device)

    def _save_epoch(self, epoch: int, row: Row) -> None:
        """Judges the epoch, then saves: the best weights first, then the state that says which epoch they are of."""
        value = self._score(row)
        self._epochs_without_gain = 0 if value > self._best else self._epochs_without_gain + 1
        if value >= self._best or not self._chooses:
            self._best, self._best_epoch = value, epoch + 1
            with self._average.applied() if self._average else nullcontext():
                self._save("best", {"network": self._learner.network.state_dict()})
        if self._trainable(epoch) != self._trainable(self._train.epochs - 1):
            self._epochs_without_gain = 0  # while layers are still being unfrozen
        if self._chooses and 0 < self._train.early_stopping <= self._epochs_without_gain:
            self._schedule.decay_now(epoch + 1)
        self._save("last", self._state(epoch, row))

    def _score(self, row: Row) -> float:
        """The monitored metric, higher for a better epoch; NaN, which no comparison could place, is worse than any."""
        value = -row[self._monitor] if self._monitor.endswith("loss") else row[self._monitor]
        return -np.inf if np.isnan(value) else value

    def _state(self, epoch: int, row: Row) -> dict[str, Any]:
        return {
            "epoch": epoch + 1,
            "network": self._learner.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state() if self._average else None,
            "rows": [*self._logger.rows, row],
            "precision": self._precision,
            "best": float(self._best),
            "best_epoch": self._best_epoch,
            "waited": self._epochs_without_gain,
            "decay_from": self._schedule.decay_from,
        }

    def _resume(self) -> int:
        """Takes over where an earlier run stopped; the number of epochs that are done."""
        state = self._checkpoints.load("last", self._device)
        if state is None:
            return 0
        self._learner.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.restore(state["average"])
        self._precision = state["precision"]
        self._best, self._best_epoch, self._epochs_without_gain = state["best"], state["best_epoch"], state["waited"]
        self._schedule.decay_now(state["decay_from"])
        for row in state["rows"]:
            self._logger.log(row)
        return int(state["epoch"])

    def _save(self, name: str, state: dict[str, Any]) -> None:
        if distributed.rank() == 0:
            self._checkpoints.save(name, state)
        distributed.barrier()

    def _trainable(self, epoch: int) -> int:
        train, groups = self._train, len(self._learner.groups)
        return trainable_groups(train.unfreeze, groups, epoch, train.epochs, self._head_epochs)

    def _seed(self, epoch: int) -> int:
        entropy = [self._train.seed, epoch, distributed.rank()]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16")

    def _check(self, loss: float, epoch: int) -> None:
        if not np.isfinite(loss):
            raise RatchetError(
                f"Training diverged: the loss is {loss} in epoch {epoch + 1}."
                " Lower train.learning_rate, lengthen train.warmup_epochs or set train.max_grad_norm"
            )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
