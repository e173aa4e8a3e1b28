"""Numbers on their way into a JSON file."""

from collections.abc import Mapping
from typing import Any


def finite_json(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(inner) for inner in value]
    return None if isinstance(value, float) and value - value != 0 else value
