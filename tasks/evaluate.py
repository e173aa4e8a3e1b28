"""The stage `evaluate`: the exported program over the test split, one row per example, and over a sample of what it
was trained on, so that a training that went wrong can be told from a candidate that is worse.

Run: python -m tasks.evaluate MODEL. Reads artifacts/<model>/program; writes artifacts/<model>/evaluation. What the
program costs to run is measured in judge.py, beside the champion.
"""

import json
from pathlib import Path

import pandas as pd

from models.common.data.batches import data_version, read_manifest
from models.common.data.held_out import with_validation
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.program import ProgramSpec
from tasks.project.command import run
from tasks.project.finite_json import finite_json
from tasks.project.params import Model, load_model
from tasks.project.paths import home

MAX_TRAINING_SAMPLE = 300  # training examples that are scored, too: a share of them is known to 0.05 at worst (95 %)
MIN_TRAINING_SAMPLE = 100  # but of few test examples no more than there are of those, or this many


def evaluate(root: Path, model: str) -> None:
    """Writes evaluation/examples.parquet, training_examples.parquet (a sample) and metrics.json.

    UserError where there is nothing to test on.
    """
    params = load_model(root, model)
    folder = root / "artifacts" / model
    table = score(root, params, folder / "program")
    metrics = summary(params, table, folder / "program")
    out = folder / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / "examples.parquet", index=False)
    trained = score_training_sample(root, params, folder / "program", len(table))
    trained.to_parquet(out / "training_examples.parquet", index=False)
    content = {
        "examples": len(table),
        **metrics,
        "training_examples": len(trained),
        "training_metrics": summary(params, trained, folder / "program") if len(trained) else {},
        "data_version": data_version(root / "data" / model),
    }
    # a NaN is written as null; the gate sees it in the table itself
    (out / "metrics.json").write_text(json.dumps(finite_json(content), indent=2) + "\n")
    shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in list(metrics)[:3])
    print(f"{model}: {len(table):,} test examples, {shown}")


def score(root: Path, params: Model, program: Path) -> pd.DataFrame:
    """The per-example score table of a program, the candidate's or the champion's, over today's test split."""
    batches = root / "data" / params.name
    return params.kind.score(ScoreJob(program, read_test_split(batches, params), batches, home(root)))


def score_training_sample(root: Path, params: Model, program: Path, tests: int) -> pd.DataFrame:
    """The same table of a sample of the training examples; empty where the data has none any more."""
    batches = root / "data" / params.name
    manifest = with_validation(read_manifest(batches), params.data.splits.val)
    rows = training_sample(manifest, min(MAX_TRAINING_SAMPLE, max(MIN_TRAINING_SAMPLE, tests)))
    return params.kind.score(ScoreJob(program, rows, batches, home(root))) if len(rows) else rows[["id"]]


def training_sample(manifest: pd.DataFrame, size: int) -> pd.DataFrame:
    """At most `size` training examples, in the manifest's order: those of the smallest ids.

    An id is a hash of the bytes, so they are a sample by chance, the same for the same data and nearly so for more.
    """
    rows = manifest[manifest["split"] == "train"].drop_duplicates("id")
    chosen = rows["id"].sort_values().index[:size]
    return rows.loc[chosen.sort_values()].reset_index(drop=True)


def read_test_split(batches: Path, params: Model) -> pd.DataFrame:
    """The rows of the manifest to test on, each example once. UserError where there are none."""
    manifest = read_manifest(batches)
    rows = manifest[manifest["split"] == "test"].drop_duplicates("id")  # two clones may add the same file at once
    if rows.empty:
        share = params.data.splits.test
        command = f"ratchet add {params.name} SOURCE --split test"
        alternative = "" if share else f", or set models.{params.name}.data.splits.test above 0 before adding more"
        raise UserError(f"{params.name} has no test examples among {len(manifest):,}. Add some: {command}{alternative}")
    return rows.reset_index(drop=True)


def summary(params: Model, table: pd.DataFrame, program: Path) -> dict[str, float]:
    """The kind's metrics of a score table."""
    return params.kind.summary(table, ProgramSpec.load(program).labels)


if __name__ == "__main__":
    run(evaluate)
