"""The stage `evaluate`: the exported program over the test split, one row per example.

Run: python -m tasks.evaluate MODEL. Reads artifacts/<model>/program; writes artifacts/<model>/evaluation. What the
program costs to run is measured in judge.py, beside the champion.
"""

import json
from pathlib import Path

import pandas as pd

from models.common.data.batches import data_version, read_manifest
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.program import ProgramSpec
from tasks.project.command import run
from tasks.project.finite_json import finite_json
from tasks.project.params import Model, load_model
from tasks.project.paths import home


def evaluate(root: Path, model: str) -> None:
    """Writes evaluation/examples.parquet and metrics.json. UserError where there is nothing to test on."""
    params = load_model(root, model)
    folder = root / "artifacts" / model
    table = score(root, params, folder / "program")
    metrics = summary(params, table, folder / "program")
    out = folder / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / "examples.parquet", index=False)
    content = {"examples": len(table), **metrics, "data_version": data_version(root / "data" / model)}
    # a NaN is written as null; the gate sees it in the table itself
    (out / "metrics.json").write_text(json.dumps(finite_json(content), indent=2) + "\n")
    shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in list(metrics)[:3])
    print(f"{model}: {len(table):,} test examples, {shown}")


def score(root: Path, params: Model, program: Path) -> pd.DataFrame:
    """The per-example score table of a program, the candidate's or the champion's, over today's test split."""
    batches = root / "data" / params.name
    return params.kind.score(ScoreJob(program, read_test_split(batches, params), batches, home(root)))


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
