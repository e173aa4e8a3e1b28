"""How many things of each class are in an example whose truth is no label: its column `classes`, as JSON text."""

import json
from collections.abc import Mapping


def write_counts(counts: Mapping[str, int]) -> str:
    """'{"car": 2, "sky": 1}'; of boxes and instances how many, of a mask's classes 1 each."""
    return json.dumps(dict(sorted(counts.items())), ensure_ascii=False)


def read_counts(text: str | None) -> dict[str, int]:
    """What `write_counts` wrote; empty where there is none."""
    return {str(name): int(count) for name, count in json.loads(text).items()} if text else {}
