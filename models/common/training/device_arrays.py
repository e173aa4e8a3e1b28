"""Decoded examples by position, on the device as a whole where that is a GPU with room for them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.common.data.decoded_cache import Decoded
from models.common.training.transfer import to_device

MAX_MEMORY_SHARE = 0.4  # share of a GPU's free memory that they may take; else they travel batch by batch
UPLOAD_BYTES = 2**26  # at a time


class DeviceArrays:
    """One or more arrays of the same examples, such as pictures and their masks."""

    def __init__(self, sources: Sequence[Decoded], device: torch.device) -> None:
        self._sources, self._device = sources, device
        self._on_device = [self._upload(source) for source in sources] if self._fits() else None

    def __len__(self) -> int:
        return len(self._sources[0])

    def fetch(self, positions: NDArray[np.int64]) -> list[Tensor]:
        """(len(positions), *shape) of each source, on the device."""
        if self._on_device is not None:
            index = torch.from_numpy(positions).to(self._device, non_blocking=True)
            return [whole[index] for whole in self._on_device]
        return list(to_device(tuple(source.take(positions) for source in self._sources), self._device))

    def _fits(self) -> bool:
        if self._device.type != "cuda" or not len(self):
            return False
        free, _ = torch.cuda.mem_get_info(self._device)
        return len(self) * sum(int(np.prod(source.shape)) for source in self._sources) < MAX_MEMORY_SHARE * free

    def _upload(self, source: Decoded) -> Tensor:
        whole = torch.empty((len(source), *source.shape), dtype=torch.uint8, device=self._device)
        step = max(1, UPLOAD_BYTES // int(np.prod(source.shape)))
        for start in range(0, len(source), step):
            part = np.arange(start, min(start + step, len(source)))
            whole[start : start + step] = torch.from_numpy(source.take(part)).to(self._device)
        return whole
