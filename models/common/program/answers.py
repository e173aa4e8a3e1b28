"""Whether a service answers what the evaluation says. Travels in every Bento, which checks itself on every start."""

from collections.abc import Mapping, Sequence
from typing import Any


def differs(expected: Any, answer: Any, tolerance: float) -> str:
    """How `answer` differs from `expected`, in a few words; "" where it agrees.

    A mapping must have every expected key (and may have more), a sequence every item; numbers may be apart by
    `tolerance`, times their size where that is over 1; anything else is equal or differs.
    """
    if isinstance(expected, Mapping):
        if not isinstance(answer, Mapping):
            return _difference(expected, answer)
        parts = ((f"{key}: ", expected[key], answer.get(key)) for key in expected)
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(answer, Sequence) or isinstance(answer, str) or len(answer) != len(expected):
            return _difference(expected, answer)
        parts = ((f"{index}: ", *pair) for index, pair in enumerate(zip(expected, answer, strict=True)))
    elif _is_number(expected) and _is_number(answer):
        close = abs(expected - answer) <= tolerance * max(1.0, abs(expected))
        return "" if close else _difference(expected, answer)
    else:
        return "" if expected == answer else _difference(expected, answer)
    return next(
        (where + difference for where, one, other in parts if (difference := differs(one, other, tolerance))), ""
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference(expected: Any, answer: Any) -> str:
    return f"{str(answer)[:80]} instead of {str(expected)[:80]}"
