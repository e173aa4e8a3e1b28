"""Evaluating and judging for real: digits added to a project, programs that ONNX Runtime runs, a verdict in a file."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from models.common.classification.metrics import calibration_error, class_summary, class_table
from models.common.data.batches import read_manifest
from models.common.data.held_out import with_validation
from models.common.errors import UserError
from models.common.program.cost import latencies_ms, measure
from models.image_classification import COLUMNS
from tasks.add import add
from tasks.evaluate import MIN_TRAINING_SAMPLE, evaluate, score_training_sample, training_sample
from tasks.gating.gate import UNITS
from tasks.gating.verdict import Verdict
from tasks.judge import judge
from tasks.project.params import load_model
from tasks.train import train
from tests.digits import write_digits
from tests.judged import LABELS, champion_of, linear_graph, write_program, write_project


@pytest.fixture(scope="module")
def _trained(_template: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(_template, tmp_path_factory.mktemp("trained") / "project", digits)


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """A project with 200 digits and an evaluated candidate that was trained on others."""
    return Path(shutil.copytree(_trained, tmp_path / "project", symlinks=True))


def test_the_test_split_and_nothing_else_is_scored(trained: Path) -> None:
    manifest = read_manifest(trained / "data/digits")
    table = pd.read_parquet(trained / "artifacts/digits/evaluation/examples.parquet")
    assert set(table["id"]) == set(manifest.loc[manifest["split"] == "test", "id"])
    assert (table["label"] == table["prediction"]).mean() == table["correct"].mean() > 0.85
    assert table["probabilities"].map(sum).to_numpy() == pytest.approx(1, abs=1e-5)
    metrics = json.loads((trained / "artifacts/digits/evaluation/metrics.json").read_text())
    assert metrics["examples"] == len(table)
    assert metrics["accuracy"] == table["correct"].mean()
    assert not set(metrics) & set(UNITS)  # what it costs is measured once, beside the champion


def test_a_sample_of_the_training_examples_is_scored_too_by_the_same_metrics(trained: Path) -> None:
    manifest = read_manifest(trained / "data/digits")
    table = pd.read_parquet(trained / "artifacts/digits/evaluation/training_examples.parquet")
    assert set(table["id"]) <= set(manifest.loc[manifest["split"] == "train", "id"])
    assert len(table) == MIN_TRAINING_SAMPLE  # of some 120, with 61 test examples
    metrics = json.loads((trained / "artifacts/digits/evaluation/metrics.json").read_text())
    assert metrics["training_examples"] == len(table)
    assert metrics["training_metrics"]["accuracy"] == table["correct"].mean()
    assert set(metrics["training_metrics"]) == set(metrics) - {"examples", "data_version"} - {
        "training_examples",
        "training_metrics",
    }


def test_the_sample_is_the_same_for_the_same_data_and_hardly_another_for_more() -> None:
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(3000)]
    manifest = pd.DataFrame({"id": [*ids, ids[0]], "split": (["train"] * 9 + ["test"]) * 300 + ["train"], "row": 0})
    sample = training_sample(manifest, 300)
    assert len(sample) == sample["id"].nunique() == 300
    assert set(sample["split"]) == {"train"}
    assert list(sample["id"]) == [each for each in ids if each in set(sample["id"])]  # in the manifest's order
    assert set(training_sample(manifest[::-1], 300)["id"]) == set(sample["id"])
    before = training_sample(manifest[:2700], 300)
    assert len(set(before["id"]) & set(sample["id"])) > 240
    assert len(training_sample(manifest[:10], 300)) == 9


def test_what_selected_the_best_epoch_is_not_in_the_sample(trained: Path) -> None:
    index = next(iter(trained.glob("data/digits/*.index")))
    rows = pd.read_parquet(index)
    rows.assign(split=rows["split"].replace("val", "train")).to_parquet(index, index=False)  # it came as train and test
    manifest = read_manifest(trained / "data/digits")
    params = load_model(trained, "digits")
    held_out = with_validation(manifest, params.data.splits.val)
    sample = score_training_sample(trained, params, trained / "artifacts/digits/program", tests=len(rows))
    assert set(sample["id"]) == set(held_out.loc[held_out["split"] == "train", "id"])
    assert len(sample) < (manifest["split"] == "train").sum()


def test_a_training_that_was_too_short_is_told_from_a_batch_that_is_bad(trained: Path) -> None:
    champion = champion_of(trained, examples=1500)
    retrain(trained, "{network: small_cnn, width: 8, epochs: 1, warmup_epochs: 0, learning_rate: 0.00001}")
    verdict = judge(trained, "digits", champion, "v1.0.0")
    assert (verdict.outcome, verdict.suspects_batch) == ("REJECT", False)
    assert "the training did not fit its own examples: accuracy 0." in verdict.reasons[-1]
    assert "raise train.epochs" in verdict.reasons[-1]
    written = json.loads((trained / "artifacts/digits/verdict.json").read_text())
    assert (written["diagnosis"]["looks"], written["diagnosis"]["epochs_run"]) == ("did not fit", 1)


@pytest.mark.slow
def test_of_a_batch_with_40_percent_wrong_labels_a_real_training_is_not_blamed(project: Path, tmp_path: Path) -> None:
    """In 30 epochs a network as wide as this begins to learn wrong labels by heart."""
    add(project, "digits", write_digits(tmp_path / "clean", 0, 600))
    train_on = "{network: small_cnn, width: 48, epochs: 30, learning_rate: 0.01, weight_decay: 0, early_stopping: 0}"
    retrain(project, train_on)
    champion = tmp_path / "champion"
    for folder in ("program", "training"):
        shutil.copytree(project / "artifacts/digits" / folder, champion / folder)
    add(project, "digits", write_digits(tmp_path / "wrong", 600, 1700, shuffled=0.4), split="train")
    retrain(project, train_on)
    verdict = judge(project, "digits", champion, "v1.0.0")
    assert (verdict.outcome, verdict.suspects_batch) == ("REJECT", True)
    assert "batch wrong-" in verdict.reasons[-1]
    assert "look at its labels" in verdict.reasons[-1]


def retrain(project: Path, params: str) -> None:
    """Trains and evaluates the digits for real, with this `train` section."""
    content = yaml.safe_load((project / "params.yaml").read_text())
    content["models"]["digits"]["train"] = yaml.safe_load(params)
    (project / "params.yaml").write_text(yaml.safe_dump(content))
    (project / "artifacts/digits/initial_weights").mkdir(parents=True, exist_ok=True)
    train(project, "digits")
    evaluate(project, "digits")


def test_without_test_examples_one_line_says_how_to_get_some(trained: Path) -> None:
    params = (trained / "params.yaml").read_text()
    (trained / "params.yaml").write_text(params.replace("test: 0.3", "test: 0.0"))
    index = trained / "data/digits" / next(iter(trained.glob("data/digits/*.index"))).name
    pd.read_parquet(index).assign(split="train").to_parquet(index, index=False)
    with pytest.raises(
        UserError, match=r"no test examples among 200\. Add some: ratchet add digits SOURCE --split test"
    ):
        evaluate(trained, "digits")


def test_a_first_model_is_promoted_on_its_own_exam(trained: Path) -> None:
    verdict = judge(trained, "digits", None, None)
    assert (verdict.outcome, verdict.first) == ("PROMOTE", True)
    written = json.loads((trained / "artifacts/digits/verdict.json").read_text())
    assert Verdict.from_json(written) == verdict
    assert written["model"] == "digits"
    assert written["metrics"]["champion"] is None
    cost = written["metrics"]["candidate"]
    assert 0 < cost["latency_ms"] < 50
    assert 0.005 < cost["size_mb"] < 0.1
    assert 20 < cost["memory_mb"] < 200  # ONNX Runtime and NumPy, and no torch


def test_the_champion_sits_the_same_exam_and_loses(trained: Path) -> None:
    folder = champion_of(trained, examples=1500, noise=3.0)
    verdict = judge(trained, "digits", folder, "v1.0.0")
    assert verdict.outcome == "PROMOTE"
    candidate = pd.read_parquet(trained / "artifacts/digits/evaluation/examples.parquet")
    champion = pd.read_parquet(folder / "examples.parquet")
    assert set(candidate["id"]) == set(champion["id"])
    written = json.loads((trained / "artifacts/digits/verdict.json").read_text())
    assert written["champion_version"] == "v1.0.0"
    assert written["metrics"]["candidate"]["accuracy"] > written["metrics"]["champion"]["accuracy"]
    assert {check.name for check in verdict.checks if check.about == "budget"} == {"latency_ms", "size_mb", "memory_mb"}


def test_the_same_program_again_is_held(trained: Path) -> None:
    assert judge(trained, "digits", champion_of(trained, examples=1500), "v1.0.0").outcome == "HOLD"


def test_a_champion_that_knows_fewer_labels_is_compared_on_the_shared_ones(trained: Path) -> None:
    verdict = judge(trained, "digits", champion_of(trained, examples=1200, labels=LABELS[:8]), "v1.0.0")
    assert verdict.outcome in {"HOLD", "PROMOTE"}
    assert verdict.primary is not None
    table = pd.read_parquet(trained / "artifacts/digits/evaluation/examples.parquet")
    assert verdict.primary.examples == table["label"].isin(LABELS[:8]).sum()


@pytest.mark.parametrize("damage", ["program/program.onnx", "program/program.json", "training/trained_on.parquet"])
def test_a_damaged_champion_holds(trained: Path, damage: str) -> None:
    folder = champion_of(trained, examples=1500)
    (folder / damage).write_bytes(b"not what it was")
    verdict = judge(trained, "digits", folder, "v1.0.0")
    assert verdict.outcome == "HOLD"
    assert "the champion cannot be loaded" in verdict.reasons[0]


def test_a_program_that_gives_nan_is_an_error(trained: Path) -> None:
    bad = np.full((64, 10), np.nan, np.float32)
    onnx.save(linear_graph(bad, np.zeros(10, np.float32)), trained / "artifacts/digits/program/program.onnx")
    evaluate(trained, "digits")
    verdict = judge(trained, "digits", None, None)
    assert verdict.outcome == "ERROR"
    assert any("log_loss of the candidate is nan" in reason for reason in verdict.reasons)
    json.loads((trained / "artifacts/digits/verdict.json").read_text(), parse_constant=pytest.fail)


def test_a_test_example_that_was_trained_on_is_an_error(trained: Path) -> None:
    manifest = read_manifest(trained / "data/digits")
    manifest[["id", "group"]].to_parquet(trained / "artifacts/digits/training/trained_on.parquet", index=False)
    verdict = judge(trained, "digits", None, None)
    assert verdict.outcome == "ERROR"
    tested = (manifest["split"] == "test").sum()
    assert f"{tested} of {tested} test examples are in the candidate's training data" in verdict.reasons[0]


def scored(probabilities: NDArray[np.float64], truth: list[str], labels: tuple[str, ...]) -> pd.DataFrame:
    rows = [str(index) for index in range(len(truth))]
    manifest = pd.DataFrame({"id": rows, "label": truth, "split": "test", "group": None, "batch": "b", "row": 0})
    return class_table(manifest, probabilities.astype(np.float32), labels, COLUMNS)


def test_the_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = ("ant", "bee", "cat")
    probabilities = rng.dirichlet([1, 1, 1], 300)
    truth = [labels[index] for index in rng.integers(0, 3, 300)]
    table = scored(probabilities, truth, labels)
    summary = class_summary(table, labels)
    assert summary["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, table["prediction"]))
    assert summary["macro_f1"] == pytest.approx(f1_score(truth, table["prediction"], average="macro"))
    assert summary["log_loss"] == pytest.approx(log_loss(truth, probabilities), rel=1e-4)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    labels = ("no", "yes")
    sure = np.tile([0.1, 0.9], (100, 1))
    assert calibration_error(scored(sure, ["yes"] * 90 + ["no"] * 10, labels)) == pytest.approx(0, abs=1e-6)
    assert calibration_error(scored(sure, ["yes"] * 50 + ["no"] * 50, labels)) == pytest.approx(0.4, abs=1e-6)


def test_a_label_that_the_program_does_not_know_is_a_wrong_answer() -> None:
    table = scored(np.tile([0.4, 0.6], (4, 1)), ["yes", "yes", "maybe", "maybe"], ("no", "yes"))
    assert table["correct"].tolist() == [1, 1, 0, 0]
    assert np.isfinite(table["loss"]).all()


def test_programs_are_timed_in_turns_and_weighed(tmp_path: Path) -> None:
    small, other = write_program(tmp_path / "one", 300), write_program(tmp_path / "two", 300)
    one, two = latencies_ms([small, other])
    assert 1 / 3 < one / two < 3
    assert measure([small])[0]["size_mb"] == pytest.approx(sum(path.stat().st_size for path in small.iterdir()) / 1e6)
