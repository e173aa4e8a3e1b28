"""Decisions by hash: the same on every machine and in every run. Imports nothing that takes time."""

import hashlib
from collections.abc import Iterable


def unit_interval(text: str) -> float:
    """A number from 0 up to 1 for a text. Splits are decided by it, so it must stay what it is for ever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def version_of_batches(md5s: Iterable[str]) -> str:
    """Twelve hex digits that name a set of batches by the MD5s of their bytes, whatever their order."""
    return hashlib.sha256("\n".join(sorted(md5s)).encode()).hexdigest()[:12]
