"""Hashes and inspects examples in several threads, in their order, with a bounded number of them in memory."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from models.common.errors import BadExampleError
from models.common.kind import Example

CHUNK_EXAMPLES = 64  # examples given to a thread at once: one by one, scheduling would cost as much as the work
CHUNK_BYTES = 8 * 2**20
MAX_THREADS = 16  # each holds a few chunks and a decoded picture

Inspected = tuple[Example, str, dict[str, Any] | BadExampleError]
Inspect = Callable[[Example], dict[str, Any]]


def inspect_examples(examples: Iterator[Example], inspect: Inspect, known: Container[str]) -> Iterator[Inspected]:
    """(example, id, what `inspect` gave or the BadExampleError it raised); known ids are not inspected again."""
    threads = min(os.cpu_count() or 1, MAX_THREADS)
    pending: deque[Future[list[Inspected]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for chunk in _chunks(examples):
            pending.append(pool.submit(_inspect_all, chunk, inspect, known))
            if len(pending) > 2 * threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    size = 0
    for example in examples:
        chunk.append(example)
        size += len(example.payload)
        if len(chunk) == CHUNK_EXAMPLES or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _inspect_all(chunk: list[Example], inspect: Inspect, known: Container[str]) -> list[Inspected]:
    return [_inspect_one(example, inspect, known) for example in chunk]


def _inspect_one(example: Example, inspect: Inspect, known: Container[str]) -> Inspected:
    id = hashlib.sha256(example.payload).hexdigest()
    if id in known:
        return example, id, {}
    try:
        return example, id, inspect(example)
    except BadExampleError as error:
        return example, id, error
