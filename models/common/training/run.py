"""A training from start to finish, whatever the kind: build, learn, export, and what is left on disk."""

import functools
import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from models.common.data.batches import data_version
from models.common.errors import OutOfMemoryError
from models.common.kind import AnyTrainJob
from models.common.params import TrainParams
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, open_checkpoints
from models.common.training.logger import TrainingLogger
from models.common.training.loop import Learner, fit
from models.common.training.recipe import resolve_job
from models.common.training.results import clear_output_folders, explain_resource_errors, write_results

HALVED = (
    "The memory is too small for batches of {size}: once more with batches of {half}, two of them for each update of"
    " the weights"
)
HEAD_EPOCHS = 10  # of a head that learns alone from features: seconds
Job = TypeVar("Job", bound=AnyTrainJob)
L = TypeVar("L", bound=Learner)


@dataclass(frozen=True)
class Exported:
    """What became the program, and what summary.json says of it beside the training."""

    network: nn.Module  # whose weights are kept, to start from again
    name: str  # of the network; weights of another one are refused
    labels: tuple[str, ...]
    details: Mapping[str, Any] = field(default_factory=dict)  # how closely program and network agree, …


@dataclass(frozen=True)
class _Parts(Generic[Job, L]):
    """What a kind brings; all of them functions of a module, as they go to other processes where there are several."""

    build: Callable[[Job, torch.device], L]
    export: Callable[[Job, L], Exported]
    build_head: Callable[[Job, L], Learner | None] | None


def run_training(
    job: Job,
    build: Callable[[Job, torch.device], L],
    export: Callable[[Job, L], Exported],
    build_head: Callable[[Job, L], Learner | None] | None = None,
) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    build: the learner, with its network's starting weights loaded, on the device. Called with the seed set.
    export: writes job.out/program from the learner, which has the best epoch's weights, and checks that both agree.
    build_head: a learner of the same network's head alone, where there is a quick one.

    Where memory runs out it is tried once more, learning from each batch in two halves. Raises UserError for data or
    params that cannot be trained with, RatchetError where the training itself fails; its checkpoints stay, and the
    same training run again goes on from them.
    """
    job, parts = resolve_job(job), _Parts(build, export, build_head)
    if _fits(job, parts):
        return
    gc.collect()  # what the failed attempt held
    torch.cuda.empty_cache()
    print(HALVED.format(size=job.train.batch_size, half=-(-job.train.batch_size // 2)), file=sys.stderr, flush=True)
    _launch(job, parts, accumulation=2)


def _fits(job: Job, parts: _Parts[Job, L]) -> bool:
    """Trains; whether the memory was enough. OutOfMemoryError where no smaller batch could help."""
    try:
        _launch(job, parts, accumulation=1)
    except OutOfMemoryError:
        if job.train.batch_size == 1:
            raise
        return False
    return True


def _launch(job: Job, parts: _Parts[Job, L], accumulation: int) -> None:
    with explain_resource_errors(job, accumulation):
        work = functools.partial(_train, job, parts, accumulation)
        distributed.launch(work, distributed.process_count(job.train.devices))


def _train(job: Job, parts: _Parts[Job, L], accumulation: int) -> None:
    """What each process does; the first one writes."""
    with explain_resource_errors(job, accumulation):
        train, device, first = job.train, distributed.device(), distributed.rank() == 0
        with distributed.first_before_others():  # what the first one decodes, the others find in the cache
            torch.manual_seed(train.seed)
            learner = parts.build(job, device)
        if first:
            clear_output_folders(job)
        checkpoints = open_checkpoints(job, data_version(job.batches))
        trained, train = _head_alone(job, parts, learner, device, checkpoints)
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with TrainingLogger(job.out / "training" if first else None, train.epochs, config) as logger:
            result = fit(trained, train, f"val_{train.metric}", device, checkpoints, logger, accumulation)
        if first:
            exported = parts.export(job, learner)
            write_results(job, exported.network, exported.labels, exported.name, result, **exported.details)
            checkpoints.clear()


def _head_alone(
    job: Job, parts: _Parts[Job, L], learner: L, device: torch.device, checkpoints: Checkpoints
) -> tuple[Learner, TrainParams]:
    """What is to be trained, and how, after the head has learnt alone from features of the frozen rest, where it can.

    That is the head itself where nothing but it shall learn.
    """
    train = job.train
    if train.unfreeze not in ("head", "head_first") or not parts.build_head or distributed.world_size() > 1:
        return learner, train
    if train.unfreeze == "head_first" and checkpoints.load("last", device):
        return learner, train.model_copy(update={"unfreeze": "all"})  # it goes on behind the head's turn
    head = parts.build_head(job, learner)
    if head is None or train.unfreeze == "head":
        return head or learner, train
    alone = train.model_copy(update={"epochs": HEAD_EPOCHS, "warmup_epochs": 0.5, "early_stopping": 0})
    with TrainingLogger(None, HEAD_EPOCHS) as logger:
        place = Checkpoints(checkpoints.folder / "head")
        row = fit(head, alone, f"val_{train.metric}", device, place, logger).history[-1]
    metrics = " ".join(f"{name} {row[name]:.4g}" for name in row if name.startswith("val_"))
    print(f"head alone, {HEAD_EPOCHS} epochs on features of the frozen rest: {metrics}", file=sys.stderr, flush=True)
    return learner, train.model_copy(update={"unfreeze": "all"})
