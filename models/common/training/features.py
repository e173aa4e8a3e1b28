"""Features of a frozen backbone, computed once for each example and view of it, and kept beside decoded examples."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.common.data.batches import content_hash

CHUNK = 64  # examples that go through the backbone at a time
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureStore:
    """Where features lie: a file for each batch, split and view, so new data costs no more than its own pass."""

    folder: Path  # of one backbone and one way of varying examples
    batches: Path

    @staticmethod
    def of(home: Path, batches: Path, network: nn.Module, head: nn.Module, settings: str) -> "FeatureStore":
        """Of `network` without its head. settings: all that features depend on beside the weights: the size of the
        input, how it is varied, …"""
        heads = {parameter.data_ptr() for parameter in head.parameters()}
        digest = hashlib.sha256(settings.encode())
        for name, tensor in network.state_dict().items():
            if tensor.data_ptr() not in heads:
                digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return FeatureStore(home / "decoded" / f"features-{digest.hexdigest()[:16]}", batches)

    def load(self, rows: pd.DataFrame, view: int, compute: Callable[[Positions], Tensor]) -> NDArray[np.float32]:
        """(len(rows), D): of those rows of the manifest, in their order; what is not there yet is computed and kept.

        compute: features of rows by position. View 0 is the examples as they are, others are varied at random, the same
        way each time.
        """
        parts = {batch: np.flatnonzero(rows["batch"] == batch) for batch in sorted(set(rows["batch"]))}
        found = {batch: self._part(rows.iloc[part], part, view, compute) for batch, part in parts.items()}
        out = np.empty((len(rows), next(iter(found.values())).shape[1]), np.float32)
        for batch, part in parts.items():
            out[part] = found[batch]
        return out

    def _part(
        self, rows: pd.DataFrame, positions: Positions, view: int, compute: Callable[[Positions], Tensor]
    ) -> NDArray[np.float32]:
        batch = str(rows["batch"].iloc[0])
        which = hashlib.sha256(rows["row"].to_numpy(np.int64).tobytes()).hexdigest()[:8]
        path = self.folder / f"{batch}-{which}-view{view}-{content_hash(self.batches, batch)}.npy"
        if not path.exists():
            seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big")
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(seed)
                chunks = np.array_split(positions, -(-len(positions) // CHUNK))
                _write(path, torch.cat([compute(chunk).float().cpu() for chunk in chunks]).numpy())
        return np.load(path)  # type: ignore[no-any-return]


def _write(path: Path, features: NDArray[np.float32]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.save(file, features)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def inputs_of(layer: nn.Module, run: Callable[[], object]) -> Tensor:
    """What `layer` is given while `run` runs."""
    captured: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    try:
        run()
    finally:
        handle.remove()
    return captured[0]
