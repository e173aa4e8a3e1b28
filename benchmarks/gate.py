"""How often the gate errs, and how much it sees: simulated models whose true difference is known.

The peer is the usual rule, "ship it when the number is higher". `python -m benchmarks.gate` also rewrites the tables in
docs/gate.md. Seeded: the same numbers every time, but for the seconds.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.common.kind import Metric
from tasks.gating.gate import Scores, decide
from tasks.gating.statistics import BinaryComparison, compare, holm
from tasks.project.policy import Gate

DOCS = Path(__file__).parent.parent / "docs/gate.md"
SEED = 2026
TRIALS = 10_000
CONFIDENCE = 0.95
ACCURACY = Metric("accuracy", numerator="correct", binary=True)


def pairs(gain: float, differing: float, examples: int, trials: int = TRIALS) -> dict[str, float]:
    """Shares of trials promoted, rejected, and with the higher number, when the true gain and the true share of test
    examples on which the two models differ are these."""
    rng = np.random.default_rng([SEED, examples, int(1e4 * differing), int(1e4 * (gain + 1))])
    shares = [(differing + gain) / 2, (differing - gain) / 2, 1 - differing]
    counts_of_wins, times = np.unique(rng.multinomial(examples, shares, size=trials)[:, :2], axis=0, return_counts=True)
    counts = {"promoted": 0, "rejected": 0, "higher": 0}
    for (wins, losses), seen in zip(counts_of_wins.tolist(), times.tolist(), strict=True):
        pair = BinaryComparison(wins, losses, examples)
        counts["promoted"] += seen * (pair.p_above(0) < 1 - CONFIDENCE)
        counts["rejected"] += seen * (pair.p_below(0) < 1 - CONFIDENCE)
        counts["higher"] += seen * (wins > losses)
    return {name: count / trials for name, count in counts.items()}


def transcribers(speakers: int, better: float, trials: int = 2000) -> tuple[float, float]:
    """Share promoted by the cluster bootstrap, and by the higher number; word error rates differ by speaker and by
    speaker and model, so that sentences of one speaker are not independent. True rates: 0.2 and 0.2 - better."""
    rng = np.random.default_rng([SEED, speakers, int(1e4 * better)])
    groups = np.repeat(np.arange(speakers), 8)
    promoted = higher = 0
    for _ in range(trials):
        words = rng.integers(3, 13, len(groups)).astype(float)
        voice = rng.normal(0, 0.05, speakers)[groups]
        edits = [
            rng.binomial(words.astype(int), np.clip(rate + voice + rng.normal(0, 0.03, speakers)[groups], 0, 1))
            for rate in (0.2 - better, 0.2)
        ]
        comparison = compare((edits[0], words), (edits[1], words), groups, higher_is_better=False, resamples=1000)
        promoted += comparison.lower(CONFIDENCE) > 0
        higher += comparison.gain > 0
    return promoted / trials, higher / trials


def classes(drop: float, examples: int, count: int = 10, trials: int = TRIALS) -> tuple[float, float]:
    """Share of trials in which any class is refused, with Holm's adjustment and without; one class of `count` really
    drops by `drop`, tolerance 0.02; the models differ on 8 % of the examples, or on as many as the drop needs."""
    rng = np.random.default_rng([SEED, examples, int(1e4 * drop), count])
    cache: dict[tuple[int, int], float] = {}
    adjusted = plain = 0
    for _ in range(trials):
        p_values = []
        for index in range(count):
            fall = drop if index == 0 else 0.0
            differing = max(0.08, fall)
            wins, losses, _ = rng.multinomial(
                examples, [(differing - fall) / 2, (differing + fall) / 2, 1 - differing]
            ).tolist()
            if (wins, losses) not in cache:
                cache[wins, losses] = BinaryComparison(wins, losses, examples).p_below(-0.02)
            p_values.append(cache[wins, losses])
        adjusted += min(holm(p_values)) < 1 - CONFIDENCE
        plain += min(p_values) < 1 - CONFIDENCE
    return adjusted / trials, plain / trials


def whole_gate(trials: int = 400, examples: int = 500) -> dict[str, float]:
    """Shares of outcomes of the whole gate for two models of accuracy 0.9 with errors of their own."""
    rng = np.random.default_rng(SEED)
    outcomes = [
        decide(_scores(rng, examples), _scores(rng, examples), Gate(), [ACCURACY]).outcome for _ in range(trials)
    ]
    return {name: outcomes.count(name) / trials for name in ("PROMOTE", "HOLD", "REJECT")}


def _scores(rng: np.random.Generator, examples: int) -> Scores:
    labels = tuple("abcd")
    table = pd.DataFrame(
        {
            "id": [f"{index:05d}" for index in range(examples)],
            "label": [labels[index % 4] for index in range(examples)],
            "correct": (rng.random(examples) < 0.9).astype(int),
        }
    )
    return Scores(table, labels)


def seconds(examples: int, count: int) -> tuple[float, float]:
    """Of one whole decision on this many test examples and classes; of 10,000 resamples of as many log losses."""
    rng = np.random.default_rng(SEED)
    labels = tuple(f"class{index}" for index in range(count))
    names = np.array(labels)[rng.integers(0, count, examples)]
    ids = [f"{index:06d}" for index in range(examples)]
    sides = [
        Scores(pd.DataFrame({"id": ids, "label": names, "correct": rng.random(examples) < 0.9}), labels)
        for _ in range(2)
    ]
    start = time.perf_counter()
    decide(sides[0], sides[1], Gate(), [ACCURACY])
    middle = time.perf_counter()
    losses, ones = rng.gamma(0.2, 1, (2, examples)), np.ones(examples)
    compare((losses[0], ones), (losses[1], ones), np.arange(examples), higher_is_better=False)
    return middle - start, time.perf_counter() - middle


def run() -> list[dict[str, Any]]:
    """Rows for benchmarks/results.md."""
    same, better = pairs(0.0, 0.10, 500), pairs(0.02, 0.10, 2000)
    decision, resampling = seconds(10_000, 10)
    return [
        _row("no better, promoted (500 test examples)", same["promoted"], same["higher"], "at most 5.0 %"),
        _row("2 points better, promoted (2,000)", better["promoted"], better["higher"], ""),
        {
            "benchmark": "one decision (10,000 test examples, 10 classes)",
            "ours": f"{decision:.2f} s",
            "peer": "",
            "ratio": "",
            "target": "",
            "note": f"10,000 resamples of 10,000 log losses: {resampling:.1f} s",
        },
    ]


def _row(name: str, ours: float, peer: float, target: str) -> dict[str, Any]:
    note = f'{TRIALS:,} trials, seed {SEED}; peer: "ship it when the number is higher"'
    shares = {"ours": f"{100 * ours:.1f} %", "peer": f"{100 * peer:.1f} %", "ratio": f"{ours / peer:.2f}"}
    return {"benchmark": name, **shares, "target": target, "note": note}


def tables() -> dict[str, str]:
    """The tables of docs/gate.md, by the name of their place there."""
    return {"same": _same(), "power": _power(), "words": _words(), "classes": _classes(), "whole": _whole()}


def _same() -> str:
    rows = [
        [
            f"{examples:,}",
            f"{100 * differing:g} %",
            *(_share(pairs(0.0, differing, examples)[key]) for key in ("promoted", "rejected", "higher")),
        ]
        for examples in (100, 300, 1000, 10_000)
        for differing in (0.02, 0.10, 0.20)
    ]
    return _table(["test examples", "models differ on", "gate promotes", "gate rejects", "higher number"], rows)


def _power() -> str:
    rows = [
        [
            f"+{100 * gain:g} points",
            *(_share(pairs(gain, 0.10, examples)["promoted"]) for examples in (300, 1000, 3000, 10_000)),
        ]
        for gain in (0.005, 0.01, 0.02, 0.05)
    ]
    return _table(["true gain", "300 test examples", "1,000", "3,000", "10,000"], rows)


def _words() -> str:
    rows = []
    for speakers in (6, 10, 25, 100):
        same, better = transcribers(speakers, 0.0), transcribers(speakers, 0.02)
        rows.append([f"{speakers} speakers", _share(same[0]), _share(same[1]), _share(better[0])])
    return _table(
        ["groups", "no better: gate promotes", "no better: higher number", "2 points better: gate promotes"], rows
    )


def _classes() -> str:
    rows = []
    for drop in (0.0, 0.02, 0.05, 0.10, 0.20):
        shares = [classes(drop, examples, trials=2000)[0] for examples in (30, 100, 300, 1000)]
        rows.append([f"{-100 * drop:+g} points" if drop else "none", *map(_share, shares)])
    return _table(["one class of ten drops by", "30 examples a class", "100", "300", "1,000"], rows)


def _whole() -> str:
    shares = whole_gate()
    return _table(list(shares), [[_share(share) for share in shares.values()]])


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _between(table: str) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{found[1]}\n\n{table}\n\n{found[2]}"


def main() -> None:
    """Rewrites the tables of docs/gate.md."""
    text = DOCS.read_text()
    for name, table in tables().items():
        print(f"{name}\n{table}\n", flush=True)
        section = re.compile(rf"(<!-- measured: {name} -->).*?(<!-- end -->)", re.DOTALL)
        text = section.sub(_between(table), text)
    DOCS.write_text(text)


if __name__ == "__main__":
    main()
