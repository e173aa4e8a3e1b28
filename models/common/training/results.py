"""What a training leaves in artifacts/<model>/training, the same for every kind."""

import errno
import json
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.common.errors import OutOfMemoryError, RatchetError
from models.common.kind import AnyTrainJob
from models.common.training.loop import TrainingResult

RECIPE = ("weights", "unfreeze", "epochs", "batch_size", "learning_rate", "layer_decay", "warmup_epochs", "ema_decay")


def clear_output_folders(job: AnyTrainJob) -> tuple[Path, Path]:
    """job.out/program and job.out/training, emptied."""
    folders = job.out / "program", job.out / "training"
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folders


def write_results(
    job: AnyTrainJob,
    network: nn.Module,
    labels: tuple[str, ...],
    network_name: str,
    result: TrainingResult,
    **details: Any,
) -> None:
    """weights.pt, trained_on.parquet and summary.json; `details` goes into the summary."""
    folder = job.out / "training"
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    with (folder / "weights.pt").open("wb") as file:
        torch.save({"network": network_name, "labels": list(labels), "state": state}, file)
    trained_on = job.manifest[job.manifest["split"].isin(["train", "val"])]
    trained_on[["id", "group"]].to_parquet(folder / "trained_on.parquet", index=False)
    summary = _summary(network, result) | {"recipe": _recipe(job)} | details
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


@contextmanager
def explain_resource_errors(job: AnyTrainJob, accumulation: int) -> Iterator[None]:
    """A full disk and a full memory, wherever in a training they happen, become one line that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(job, "the GPU", accumulation) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RatchetError(
            f"The disk is full (writing under {error.filename or job.out}). Nothing is lost: free some space and run"
            f" again; training goes on from its last checkpoint in {job.home / 'checkpoints'}"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(job, "this machine", accumulation) from error


def _out_of_memory(job: AnyTrainJob, where: str, accumulation: int) -> OutOfMemoryError:
    size = -(-job.train.batch_size // accumulation)
    halved = f", half of train.batch_size ({job.train.batch_size})" if accumulation > 1 else ""
    return OutOfMemoryError(
        f"The memory of {where} is too small for batches of {size}{halved}."
        f" Lower models.{job.model}.train.batch_size or the size of its input"
    )


def _recipe(job: AnyTrainJob) -> dict[str, Any]:
    """What was decided where params leave it open."""
    return {name: getattr(job.train, name) for name in RECIPE}


def _summary(network: nn.Module, result: TrainingResult) -> dict[str, Any]:
    parameters = list(network.parameters())
    history = result.history
    return {
        "epochs_run": len(history),
        "best_epoch": result.best_epoch,
        "selected_by": result.selected_by,
        "decay_from_epoch": result.decay_from,
        "stopped_early": result.stopped_early,
        "seconds": round(sum(row["seconds"] for row in history), 3),
        "seconds_per_step": statistics.median(row["seconds_per_step"] for row in history),
        "peak_memory_mb": round(result.peak_memory_mb, 1),
        "device": result.device,
        "precision": result.precision,
        "accumulation": result.accumulation,  # in how many parts a batch was learnt from
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "torch": torch.__version__,
    }
