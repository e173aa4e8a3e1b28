"""Does more clean data help, by defaults alone? 25, 50 and 100 % of five data sets, several seeds, judged by the gate.

    python -m benchmarks.more_data ../shared/data                       every set, five seeds: hours on two cores
    python -m benchmarks.more_data ../shared/data --sets digits spoken_digits --seeds 2
    python -m benchmarks.more_data ../shared/data --without averaging   the same without one element of the recipe

A seed decides which examples are the first quarter and how the network starts. What was done is kept under
.demo/more_data, so that a run that is stopped goes on where it was; `--table` prints what there is without training.
Nothing but facts about the data is set (its sample rate, how it is split): epochs, rates and all else are the defaults.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.connected_digits import write_strings
from models.common.data.sources import Source
from models.common.kind import AnyTrainJob, Kind, ScoreJob, load_kind
from models.common.program.program import ProgramSpec
from tasks.gating.gate import Scores, decide
from tasks.project.policy import Gate
from tests import delivered
from tests.digits import write_digits
from tests.story import CODE

SHARES = (0.25, 0.5, 1.0)
SEEDS = 5
STATED_ERROR = 0.05  # how often the gate may call a candidate worse that is not
FOLDER = CODE / ".demo" / "more_data"
WITHOUT: dict[str, dict[str, Any]] = {  # element of the recipe: the params that leave it out
    "averaging": {"ema_decay": 0.0},
    "a stable stretch": {"decay_share": 1.0, "early_stopping": 0},
    "early stopping": {"early_stopping": 0},
    "the head first": {"unfreeze": "all"},
    "rates that fall towards the stem": {"layer_decay": 1.0},
    "pretrained weights": {"weights": "none"},
    "random filters": {"augment": {"filter_db": 0.0}},
}
NO_BUDGET = {"latency_ms": 1.0, "size_mb": 1.0, "memory_mb": 1.0}  # the same for both: not what is asked here


class DataSet(NamedTuple):
    """kind, facts about the data, and deliveries by split: made or found in the folder of shared data."""

    kind: str
    data: dict[str, Any]
    deliver: Callable[[Path, Path], list[tuple[Path, str | None]]]  # (shared data, scratch) -> (source, split of all)


def _digits(_: Path, scratch: Path) -> list[tuple[Path, str | None]]:
    return [
        (write_digits(scratch / "digits", 0, 1200), None),
        (write_digits(scratch / "digits-test", 1200, 1797), "test"),
    ]


def _cifar10(data: Path, scratch: Path) -> list[tuple[Path, str | None]]:
    del scratch
    return [(data / "cifar10/train-1.zip", None), (data / "cifar10/test.zip", "test")]


def _spoken_digits(data: Path, scratch: Path) -> list[tuple[Path, str | None]]:
    del scratch
    return [(path, None) for path in sorted((data / "fsdd").glob("*.zip"))]


def _connected_digits(data: Path, scratch: Path) -> list[tuple[Path, str | None]]:
    return [(write_strings(data / "fsdd", scratch / "strings", {"train": 2000, "val": 250, "test": 500}), None)]


def _blood_cells(data: Path, scratch: Path) -> list[tuple[Path, str | None]]:
    del scratch
    return [(data / "bccd/train.zip", None), (data / "bccd/val.zip", "test")]


NO_TEST = {"splits": {"val": 0.1, "test": 0.0}}  # the test examples are delivered as such
SETS = {
    "digits": DataSet("image_classification", {"min_side": 8, "near_duplicate_bits": 0, **NO_TEST}, _digits),
    "cifar10": DataSet("image_classification", NO_TEST, _cifar10),
    "spoken_digits": DataSet("speech_command", {"sample_rate": 8000}, _spoken_digits),
    "connected_digits": DataSet("speech_recognition", {"sample_rate": 8000}, _connected_digits),
    "blood_cells": DataSet("object_detection", {"image_size": [320, 256], **NO_TEST}, _blood_cells),
}
LIMITS = {"cifar10": (4000, 2000)}  # examples to train on and to test on, where all of them would take hours


class Trained(NamedTuple):
    """What came of one training."""

    metric: float
    seconds: float
    table: pd.DataFrame
    labels: tuple[str, ...]


def main() -> None:
    """Trains what is not done yet, a line each, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--without", choices=list(WITHOUT))
    parser.add_argument("--table", action="store_true", help="print what is done, train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        for name in arguments.sets:
            _run(name, arguments.data.resolve(), range(arguments.seeds), arguments.without)
    print("\n".join(table(arguments.sets, arguments.without)))


def _run(name: str, shared: Path, seeds: range, without: str | None) -> None:
    kind, root = load_kind(SETS[name].kind), FOLDER / name
    job = _whole(name, kind, shared, root)
    for seed in seeds:
        for share in SHARES if without is None else SHARES[-1:]:
            folder = _folder(name, seed, share, without)
            if not (folder / "result.json").exists():
                line = _train(kind, _part(job, share, seed, without), folder)
                print(f"{name} seed {seed} {share:.0%}{f' without {without}' if without else ''}: {line}", flush=True)


def _whole(name: str, kind: Kind, shared: Path, root: Path) -> AnyTrainJob:
    """A training on everything, its test examples as delivered or by hash."""
    data = kind.Data(**SETS[name].data)
    with tempfile.TemporaryDirectory() as scratch:
        deliveries = SETS[name].deliver(shared, Path(scratch))
        batches = root / "data" / "model"
        if not batches.exists():
            delivered.write_batches(root, kind, data, *(source for source, _ in deliveries))
        job = delivered.job(root, batches, kind, data)
        as_test = [Source(source).slug for source, split in deliveries if split == "test"]
    manifest = job.manifest
    manifest["split"] = manifest["split"].mask(manifest["batch"].isin(as_test), "test")
    return dataclasses.replace(job, manifest=_limited(manifest, *LIMITS.get(name, (None, None))))


def _limited(manifest: pd.DataFrame, training: int | None, test: int | None) -> pd.DataFrame:
    is_test = manifest["split"] == "test"
    parts = [manifest[~is_test].sort_values("id").head(training or len(manifest))]
    parts.append(manifest[is_test].sort_values("id").head(test or len(manifest)))
    return pd.concat(parts, ignore_index=True)


def _part(job: AnyTrainJob, share: float, seed: int, without: str | None) -> AnyTrainJob:
    """A share of what is trained on; the smaller shares lie in the larger ones."""
    manifest = job.manifest
    place = manifest["id"].map(lambda each: int(hashlib.sha256(f"{seed} {each}".encode()).hexdigest()[:8], 16) / 2**32)
    kept = manifest[(manifest["split"] == "test") | (place < share)].reset_index(drop=True)
    known = set(type(job.train).model_fields)
    left_out = {key: value for key, value in WITHOUT.get(without or "", {}).items() if key in known}
    train = type(job.train)(**{"seed": seed, **left_out})
    return dataclasses.replace(job, manifest=kept, train=train)


def _train(kind: Kind, job: AnyTrainJob, folder: Path) -> str:
    """Trains, scores the test examples, and keeps what came of it."""
    kind.train(job)
    test = job.rows("test").reset_index(drop=True)
    scores = kind.score(ScoreJob(job.out / "program", test, job.batches, job.home))
    labels = ProgramSpec.load(job.out / "program").labels
    metric = kind.METRICS[0]
    summary = json.loads((job.out / "training/summary.json").read_text())
    result = {
        "metric": metric.name, "value": metric.value(scores), "labels": labels, "seconds": summary["seconds"],
        "epochs": summary["epochs_run"], "examples": len(job.rows("train")), "recipe": summary["recipe"],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(folder / "scores.parquet", index=False)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(job.out)
    return f"{metric.name} {result['value']:.4f}, {result['epochs']} epochs, {result['seconds']:.0f} s"


def _folder(name: str, seed: int, share: float, without: str | None) -> Path:
    variant = without.replace(" ", "-") if without else "defaults"
    return FOLDER / name / variant / f"{seed}-{share}"


def _load(name: str, seed: int, share: float, without: str | None) -> Trained | None:
    folder = _folder(name, seed, share, without)
    if not (folder / "result.json").exists():
        return None
    result = json.loads((folder / "result.json").read_text())
    scores = pd.read_parquet(folder / "scores.parquet")
    return Trained(result["value"], result["seconds"], scores, tuple(result["labels"]))


def table(sets: list[str], without: str | None) -> list[str]:
    """Lines of a table: each set's mean over the seeds, with its standard error, and what the gate said of it."""
    if without:
        return _difference(sets, without)
    lines = [f"| data | {' | '.join(f'{share:.0%}' for share in SHARES)} | promoted, held, refused | seconds |"]
    lines.append("|---|" + "---|" * (len(SHARES) + 2))
    refused = judged = 0
    for name in sets:
        by_share = [[run for seed in range(100) if (run := _load(name, seed, share, None))] for share in SHARES]
        outcomes = [outcome for seed in range(100) for outcome in _outcomes(name, seed)]
        counts = [outcomes.count(outcome) for outcome in ("PROMOTE", "HOLD", "REJECT")]
        refused, judged = refused + counts[2], judged + len(outcomes)
        means = " | ".join(_mean([run.metric for run in runs]) for runs in by_share)
        seconds = " / ".join(f"{np.median([run.seconds for run in runs]):.0f}" if runs else "-" for runs in by_share)
        lines.append(f"| {name} | {means} | {', '.join(map(str, counts))} | {seconds} |")
    lines.append(f"\nRefused as worse: {refused} of {judged}; the gate states at most {STATED_ERROR:.0%}.")
    return lines


def _difference(sets: list[str], without: str) -> list[str]:
    lines = [f"| data | defaults | without {without} | n |", "|---|---|---|---|"]
    for name in sets:
        pairs = [(_load(name, seed, 1.0, None), _load(name, seed, 1.0, without)) for seed in range(100)]
        both = [(whole.metric, less.metric) for whole, less in pairs if whole and less]
        if both:
            lines.append(f"| {name} | {_mean([a for a, _ in both])} | {_mean([b for _, b in both])} | {len(both)} |")
    return lines


def _outcomes(name: str, seed: int) -> list[str]:
    """What the gate says of the model of each larger share against the one of the share before it."""
    runs = [_load(name, seed, share, None) for share in SHARES]
    found: list[str] = []
    kind = load_kind(SETS[name].kind)
    for less, more in itertools.pairwise(runs):
        if less and more:
            policy = Gate(metric=kind.METRICS[0].name)
            candidate, champion = (_scores(kind, run) for run in (more, less))
            found.append(decide(candidate, champion, policy, kind.METRICS).outcome)
    return found


def _scores(kind: Kind, run: Trained) -> Scores:
    return Scores(run.table, run.labels, metrics=kind.summary(run.table, run.labels), budget=NO_BUDGET)


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    error = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{error}"


if __name__ == "__main__":
    main()
