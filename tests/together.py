"""What a process does that trains together with others; apart from the tests, so that it starts with few imports."""

import json
from pathlib import Path

import torch

from models.common.errors import UserError
from models.common.training import distributed


def meet(folder: Path) -> None:
    """Writes what this process has after gradients and a row of results were shared."""
    weight = torch.nn.Parameter(torch.zeros(2))
    frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    weight.grad = torch.tensor([1.0, 10.0]) * (1 + distributed.rank())
    distributed.average_gradients([weight, frozen])
    row = distributed.broadcast_row({"val_loss": float(distributed.rank())}, torch.device("cpu"))
    (folder / f"{distributed.rank()}.json").write_text(
        json.dumps([weight.grad.tolist(), row, distributed.world_size()])
    )


def fail() -> None:
    """Ends as a process with bad luck does."""
    raise UserError("one of us cannot: try again")
