"""Everything around the gate that is not pure: files, the champion scored on the same test examples, times and memory.

Reads the candidate's scores, scores the champion on the same test examples, measures both side by side, asks the gate,
writes artifacts/<model>/verdict.json.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from models.common.data.batches import data_version, read_manifest
from models.common.errors import UserError
from models.common.program.cost import measure
from models.common.program.program import Program, ProgramSpec
from tasks.evaluate import score, summary
from tasks.gating.diagnosis import Training, explain
from tasks.gating.gate import Scores, Unloadable, Verdict, decide
from tasks.project.finite_json import finite_json
from tasks.project.params import Model, load_model


def judge(root: Path, model: str, champion_folder: Path | None, champion_version: str | None) -> Verdict:
    """Judges artifacts/<model>/{program,training,evaluation}.

    champion_folder: holds the champion's `program` and `training`; None: there is no champion yet.
    UserError where the candidate's files are missing; a champion that cannot be used is a verdict, HOLD.
    """
    params = load_model(root, model)
    folder = root / "artifacts" / model
    unloadable = _why_unloadable(champion_folder, params) if champion_folder else None
    usable = champion_folder if champion_folder and unloadable is None else None
    budgets = measure([folder / "program", *([usable / "program"] if usable else [])])
    candidate = _scores(params, folder, _read(folder / "evaluation/examples.parquet"), budgets[0])
    champion: Scores | Unloadable | None = unloadable
    if usable:
        champion = _scores(params, usable, _score_champion(root, params, usable), budgets[1])
    verdict = decide(candidate, champion, params.gate, params.kind.METRICS)
    training = _training(folder, read_manifest(root / "data" / model), champion)
    verdict = explain(verdict, training, candidate, champion, params.gate, params.kind.METRICS)
    metrics = {"candidate": _metrics(candidate), "champion": _metrics(champion)}
    context = {
        "model": model,
        "champion_version": champion_version,
        "data_version": data_version(root / "data" / model),
    }
    _write(folder / "verdict.json", {**context, **verdict.to_json(), "metrics": metrics})
    return verdict


def _scores(params: Model, folder: Path, table: pd.DataFrame, budget: Mapping[str, float]) -> Scores:
    trained = _read(folder / "training/trained_on.parquet")
    return Scores(
        table,
        ProgramSpec.load(folder / "program").labels,
        trained_ids=frozenset(trained["id"]),
        trained_groups=frozenset(trained["group"].dropna()),
        metrics=summary(params, table, folder / "program"),
        budget=budget,
    )


def _training(folder: Path, manifest: pd.DataFrame, champion: Scores | Unloadable | None) -> Training:
    """What training and evaluation left of how the candidate was trained; what is not there is left out."""
    summary, history = folder / "training/summary.json", folder / "training/history.csv"
    sample = folder / "evaluation/training_examples.parquet"
    return Training(
        table=pd.read_parquet(sample) if sample.exists() else pd.DataFrame(),
        summary=json.loads(summary.read_text()) if summary.exists() else {},
        history=pd.read_csv(history) if history.exists() else pd.DataFrame(),
        new_batches=_new_batches(manifest, champion.trained_ids) if isinstance(champion, Scores) else (),
    )


def _new_batches(manifest: pd.DataFrame, trained_ids: frozenset[str]) -> tuple[str, ...]:
    """Batches with training examples, none of which the champion was trained on."""
    learnt = manifest[manifest["split"] != "test"]
    is_known = learnt["id"].isin(trained_ids).groupby(learnt["batch"]).any()
    return tuple(sorted(str(name) for name in is_known.index[~is_known]))


def _why_unloadable(folder: Path, params: Model) -> Unloadable | None:
    """Why the champion cannot be scored, or None."""
    try:
        program = Program(folder / "program")
        program.run(**program.example_inputs())
        _read(folder / "training/trained_on.parquet")
    except Exception as error:  # ONNX Runtime's errors share no public base, and a damaged file may raise anything
        return Unloadable(" ".join(str(error).split()))
    if program.spec.kind != params.kind_name:
        return Unloadable(f"it is of kind {program.spec.kind}, and {params.name} is now of kind {params.kind_name}")
    return None


def _score_champion(root: Path, params: Model, folder: Path) -> pd.DataFrame:
    table = score(root, params, folder / "program")
    table.to_parquet(folder / "examples.parquet", index=False)
    return table


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise UserError(f"{path} is missing. Make it: dvc repro")
    return pd.read_parquet(path)


def _metrics(scores: Scores | Unloadable | None) -> dict[str, float] | None:
    return {**scores.metrics, **scores.budget} if isinstance(scores, Scores) else None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """A NaN is written as null: the reasons say where it was."""
    path.write_text(json.dumps(finite_json(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
