"""Training on several GPUs: one process each, which share gradients. With one process nothing here does anything."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from models.common import errors
from models.common.errors import RatchetError, UserError


def rank() -> int:
    """This process's number, 0 being the one that validates and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """Process 0 goes through the block alone, then all the others at once."""
    if rank():
        barrier()
    yield
    if not rank():
        barrier()


def device() -> torch.device:
    """Where this process computes."""
    return torch.device("cuda", rank()) if torch.cuda.is_available() else torch.device("cpu")


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Every process's gradients become their mean, in one message.

    By hand and not by DistributedDataParallel, which cannot follow layers that are unfrozen as training goes on.
    """
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)])


def share_buffers(network: nn.Module) -> None:
    """BatchNorm's statistics become those of process 0, which is the one whose weights are kept."""
    if dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def broadcast_row(row: dict[str, float], target: torch.device) -> dict[str, float]:
    """Process 0's numbers for everyone, so that all stop after the same epoch."""
    if not dist.is_initialized():
        return row
    values = torch.tensor(list(row.values()), dtype=torch.float64, device=target)
    dist.broadcast(values, 0)
    return dict(zip(row, values.tolist(), strict=True))


def process_count(devices: int) -> int:
    """How many to start for `devices` GPUs: 1 where there is none. UserError where there are some, but fewer."""
    present = torch.cuda.device_count()
    if 0 < present < devices:
        raise UserError(f"train.devices is {devices}, but this machine has {present} GPU; lower it")
    return devices if present else 1


def launch(work: Callable[[], None], count: int) -> None:
    """Calls `work` (which must pickle) in `count` processes that can talk to each other; in this one for 1."""
    if count == 1:
        work()
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(_run_process, (count, str(Path(folder) / "store"), work), nprocs=count)  # type: ignore[no-untyped-call]
        except ProcessRaisedException as error:  # its text ends with the process's own error
            raise _process_error(str(error).strip().splitlines()[-1]) from error


def _process_error(line: str) -> RatchetError:
    """The error that a process ended with, of its own class where that is one of ours: `module.Class: message`."""
    name, _, message = line.partition(": ")
    error_class = getattr(errors, name.rpartition(".")[2], RatchetError)
    return error_class(message or line) if issubclass(error_class, RatchetError) else RatchetError(line)


def _run_process(number: int, count: int, store: str, work: Callable[[], None]) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(number)
    dist.init_process_group(backend, init_method=f"file://{store}", rank=number, world_size=count)
    try:
        work()
    finally:
        dist.destroy_process_group()
