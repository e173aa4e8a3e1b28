"""A training from start to finish, whatever the kind: build, learn, export, and what is left on disk."""

import functools
import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from models.common.data.batches import data_version
from models.common.errors import OutOfMemoryError
from models.common.kind import AnyTrainJob
from models.common.training import distributed
from models.common.training.checkpoints import open_checkpoints
from models.common.training.logger import TrainingLogger
from models.common.training.loop import Learner, fit
from models.common.training.results import clear_output_folders, explain_resource_errors, write_results

HALVED = (
    "The memory is too small for batches of {size}: once more with batches of {half}, two of them for each update of"
    " the weights"
)
Job = TypeVar("Job", bound=AnyTrainJob)
L = TypeVar("L", bound=Learner)


@dataclass(frozen=True)
class Exported:
    """What became the program, and what summary.json says of it beside the training."""

    network: nn.Module  # whose weights are kept, to start from again
    name: str  # of the network; weights of another one are refused
    labels: tuple[str, ...]
    details: Mapping[str, Any] = field(default_factory=dict)  # how closely program and network agree, …


def run_training(job: Job, build: Callable[[Job, torch.device], L], export: Callable[[Job, L], Exported]) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    build: the learner, with its network's starting weights loaded, on the device. Called with the seed set.
    export: writes job.out/program from the learner, which has the best epoch's weights, and checks that both agree.
    Both must be functions of a module, as they go to other processes where there are several GPUs.

    Where memory runs out it is tried once more, learning from each batch in two halves. Raises UserError for data or
    params that cannot be trained with, RatchetError where the training itself fails; its checkpoints stay, and the
    same training run again goes on from them.
    """
    if _fits(job, build, export):
        return
    gc.collect()  # what the failed attempt held
    torch.cuda.empty_cache()
    print(HALVED.format(size=job.train.batch_size, half=-(-job.train.batch_size // 2)), file=sys.stderr, flush=True)
    _launch(job, build, export, accumulation=2)


def _fits(job: Job, build: Callable[[Job, torch.device], L], export: Callable[[Job, L], Exported]) -> bool:
    """Trains; whether the memory was enough. OutOfMemoryError where no smaller batch could help."""
    try:
        _launch(job, build, export, accumulation=1)
    except OutOfMemoryError:
        if job.train.batch_size == 1:
            raise
        return False
    return True


def _launch(
    job: Job, build: Callable[[Job, torch.device], L], export: Callable[[Job, L], Exported], accumulation: int
) -> None:
    with explain_resource_errors(job, accumulation):
        work = functools.partial(_train, job, build, export, accumulation)
        distributed.launch(work, distributed.process_count(job.train.devices))


def _train(
    job: Job, build: Callable[[Job, torch.device], L], export: Callable[[Job, L], Exported], accumulation: int
) -> None:
    """What each process does; the first one writes."""
    with explain_resource_errors(job, accumulation):
        train, device, first = job.train, distributed.device(), distributed.rank() == 0
        with distributed.first_before_others():  # what the first one decodes, the others find in the cache
            torch.manual_seed(train.seed)
            learner = build(job, device)
        if first:
            clear_output_folders(job)
        checkpoints = open_checkpoints(job, data_version(job.batches))
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with TrainingLogger(job.out / "training" if first else None, train.epochs, config) as logger:
            result = fit(learner, train, f"val_{train.metric}", device, checkpoints, logger, accumulation)
        if first:
            exported = export(job, learner)
            write_results(job, exported.network, exported.labels, exported.name, result, **exported.details)
            checkpoints.clear()
