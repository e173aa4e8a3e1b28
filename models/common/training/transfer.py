"""From NumPy to the device that trains."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(arrays: tuple[NDArray[Any], ...], device: torch.device) -> tuple[Tensor, ...]:
    """Arrays as tensors on the device; to a GPU by pinned memory, so that the copy does not wait."""
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    if device.type != "cuda":
        return tensors
    return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
