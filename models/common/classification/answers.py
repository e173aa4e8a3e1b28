"""How a service answers a question of classes. Needs no torch: it travels in Bentos."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.program.program import softmax


def class_answer(labels: tuple[str, ...], logits: NDArray[np.float32]) -> dict[str, Any]:
    """`label`, `confidence` (its probability), `probabilities` by label, the likeliest first. `logits`: (classes,)."""
    pairs = zip(labels, softmax(logits[None])[0].tolist(), strict=True)
    ranked = {label: round(probability, 6) for label, probability in sorted(pairs, key=lambda pair: -pair[1])}
    label = next(iter(ranked))
    return {"label": label, "confidence": ranked[label], "probabilities": ranked}
