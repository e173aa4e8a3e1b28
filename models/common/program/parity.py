"""Whether a program with any inputs and outputs gives what its network gives, on real examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.common.errors import RatchetError
from models.common.program.export import TOLERANCE
from models.common.program.program import Program


def check_parity(network: nn.Module, folder: Path, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Largest difference between any output of the network and the same output of its program, on the same inputs.

    network: takes the inputs in their order, gives the program's outputs in theirs, one tensor or several.
    Raises RatchetError where one differs by more than TOLERANCE of that output's largest value.
    """
    with torch.inference_mode():
        outputs = network.eval()(*(torch.from_numpy(values) for values in inputs.values()))
    network_outputs = [tensor.numpy() for tensor in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
    program_outputs = Program(folder).run(**inputs)
    largest = 0.0
    for (name, values), expected in zip(program_outputs.items(), network_outputs, strict=True):
        difference = float(np.abs(values - expected).max())
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if not difference <= allowed:
            raise RatchetError(
                f"The exported program differs from the network: {name} by up to {difference:.2g} (allowed"
                f" {allowed:.2g}). It was not kept; report this with the network's name"
            )
        largest = max(largest, difference)
    return largest
