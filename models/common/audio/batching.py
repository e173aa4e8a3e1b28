"""Recordings of any length together: padded with zeros to one length, those of about one length in a batch.

Travels in Bentos, needs no torch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models.common.data.decoded_cache import Ragged
    from models.common.program.program import Program

MAX_BATCH_SAMPLES = 2**20  # of all recordings, with their padding, that one call of the graph takes: 65 s of 16 kHz
Scalar = TypeVar("Scalar", bound=np.generic)


def pad_batch(rows: Sequence[NDArray[Scalar]]) -> tuple[NDArray[Scalar], NDArray[np.int64]]:
    """(N, longest), zeros behind each row, and (N,) how long each is."""
    lengths = np.array([len(row) for row in rows], np.int64)
    batch = np.zeros((len(rows), int(lengths.max())), rows[0].dtype)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch, lengths


def program_inputs(sounds: Sequence[NDArray[np.int16]]) -> dict[str, NDArray[Any]]:
    """What a program on sounds of any length takes: samples (N, longest) int16 and lengths (N,) int64."""
    samples, lengths = pad_batch(sounds)
    return {"samples": samples, "lengths": lengths}


def run_batched(program: "Program", sounds: "Ragged") -> dict[str, NDArray[np.float32]]:
    """Every output of a program on sounds of any length, (N, …) each, in the order of the sounds."""
    batches = list(_batches_of_similar_length(sounds.lengths))
    outputs = [program.run(**program_inputs(sounds.take(positions))) for positions in batches]
    inverse = np.argsort(np.concatenate(batches))
    return {name: np.concatenate([output[name] for output in outputs])[inverse] for name in outputs[0]}


def _batches_of_similar_length(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Every position, by rising length, cut so that no part has over MAX_BATCH_SAMPLES with its padding."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end - start + 1) * lengths[order[end]] > MAX_BATCH_SAMPLES:
            yield order[start:end]
            start = end
