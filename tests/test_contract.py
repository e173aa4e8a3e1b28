"""Every kind is held to the contract: its smallest delivery goes through the whole chain, smoke test included.

A kind takes part by being a folder in models/ with deliveries in tests/samples/<kind>.py.
"""

import hashlib
import importlib
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from models.common.data.batches import read_columns, read_manifest, read_payloads
from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example, Kind, known_kinds, load_kind
from models.common.program.program import Program
from tasks.add import AddReport, add
from tasks.evaluate import evaluate, read_test_split
from tasks.gating.verdict import Verdict
from tasks.initial_weights import initial_weights
from tasks.judge import judge
from tasks.package import PackageReport, package
from tasks.project.params import load_model
from tasks.report import write_report
from tasks.train import train
from tasks.validate import validate

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Chain:
    """A project in which one kind's tiny model went through the chain, and the result of each step."""

    root: Path
    sample: Any
    kind: Kind
    delivery: Path
    added: AddReport
    verdict: Verdict
    packaged: PackageReport

    @property
    def model(self) -> str:
        return str(self.sample.MODEL)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts" / self.model

    @property
    def batches(self) -> Path:
        return self.root / "data" / self.model

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_parquet(self.artifacts / "evaluation/examples.parquet")

    @property
    def labels(self) -> tuple[str, ...]:
        return Program(self.artifacts / "program").spec.labels


@pytest.fixture(scope="module", params=known_kinds())
def chain(request: pytest.FixtureRequest, _template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """add → validate → initial weights → train → evaluate → gate → report → package, by each step's own function."""
    folder = tmp_path_factory.mktemp(request.param)
    sample = importlib.import_module(f"tests.samples.{request.param}")
    root = Path(shutil.copytree(_template, folder / "project", symlinks=True))
    (root / "params.yaml").write_text(yaml.safe_dump({"models": {sample.MODEL: sample.TINY}}))
    model, delivery = sample.MODEL, sample.tiny(folder / "delivery")
    added = add(root, model, delivery)
    validate(root, model)
    initial_weights(root, model)
    train(root, model)
    evaluate(root, model)
    verdict = judge(root, model, None, None)
    write_report(root, model, verdict, None, {"candidate": "0" * 40, "reproduce": "make"})
    packaged = package(root, model, "v1.0.0")
    yield Chain(root, sample, load_kind(request.param), delivery, added, verdict, packaged)
    shutil.rmtree(folder)


def test_what_was_delivered_came_in_and_is_known_when_it_comes_again(chain: Chain) -> None:
    assert chain.added.added > 0
    assert not chain.added.quarantined
    assert all(chain.added.splits.values()), chain.added.splits
    again = add(chain.root, chain.model, chain.delivery)
    assert (again.batch, again.added, again.duplicates) == (None, 0, chain.added.added)


def test_an_index_has_no_bytes_and_its_columns(chain: Chain) -> None:
    assert chain.added.batch
    index = read_columns(chain.batches, chain.added.batch, [*chain.kind.COLUMNS, "bytes", "target"])
    assert set(index.column_names) == {*chain.kind.COLUMNS, "batch"}


def test_the_score_table_has_the_test_examples_in_order_and_its_metrics_are_numbers(chain: Chain) -> None:
    params = load_model(chain.root, chain.model)
    assert list(chain.table["id"]) == list(read_test_split(chain.batches, params)["id"])
    metrics = json.loads((chain.artifacts / "evaluation/metrics.json").read_text())
    for metric in chain.kind.METRICS:
        assert np.isfinite(metrics[metric.name]), metric.name
        assert metrics[metric.name] == pytest.approx(metric.value(chain.table)), "summary and gate must be of one mind"
        if metric.estimate:
            doubled = metric.estimate(chain.table)(np.full((3, len(chain.table)), 2.0))
            assert doubled == pytest.approx([metrics[metric.name]] * 3)  # what counts twice everywhere changes nothing


def test_a_first_model_is_judged_by_every_metric_and_never_in_error(chain: Chain) -> None:
    assert chain.verdict.outcome in {"PROMOTE", "HOLD", "REJECT"}, chain.verdict.reasons


def test_a_model_is_never_better_than_itself(chain: Chain, tmp_path: Path) -> None:
    champion = tmp_path / "champion"
    for name in ("program", "training"):
        shutil.copytree(chain.artifacts / name, champion / name)
    verdict = judge(chain.root, chain.model, champion, "v1.0.0")
    assert verdict.primary is not None, verdict.reasons
    assert (verdict.outcome, verdict.primary.gain) == ("HOLD", 0), verdict.reasons


def test_the_report_has_the_kinds_own_sections_and_is_self_contained(chain: Chain) -> None:
    text = (chain.artifacts / "report.html").read_text()
    assert text.count("<h2") >= 5
    assert 'src="http' not in text
    assert "<script" not in text


def test_the_bento_passed_its_smoke_test_which_can_fail(chain: Chain) -> None:
    examples = min(32, len(chain.table))
    assert chain.packaged.requests >= examples + 12
    service = chain.kind.SERVICE
    expected = [service.expected(row, chain.labels) for row in rows(chain)]
    for one in expected:
        assert service.differs(one, one, 1e-4) == ""
    differences = [service.differs(one, other, 1e-4) for one, other in itertools.pairwise(expected)]
    assert any(differences), "every example has the same answer, so a wrong one would pass"
    assert not any("\n" in difference for difference in differences)


def rows(chain: Chain) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chain.table.to_dict("records")  # type: ignore[assignment]
    return found


def test_a_form_has_the_fields_of_the_kind_and_gives_the_example_back(chain: Chain) -> None:
    test = read_test_split(chain.batches, load_model(chain.root, chain.model)).head(3)
    for payload in read_payloads(chain.batches, test):
        form = chain.kind.SERVICE.form(payload)
        assert form
        assert set(form) <= set(chain.kind.SERVICE.fields)
        assert all(isinstance(file, bytes) and file for file in form.values())


def test_training_goes_on_from_the_champions_weights(chain: Chain, tmp_path: Path) -> None:
    section = chain.sample.TINY
    again = {
        **section,
        "train": {**section["train"], "weights": "champion", "unfreeze": "head", "epochs": 1, "warmup_epochs": 0},
    }
    root = Path(shutil.copytree(chain.root, tmp_path / "project", symlinks=True))
    (root / "params.yaml").write_text(yaml.safe_dump({"models": {chain.model: again}}))
    shutil.copytree(chain.artifacts, root / "artifacts" / chain.model / "champion")
    initial_weights(root, chain.model)
    train(root, chain.model)
    summary = json.loads((root / "artifacts" / chain.model / "training/summary.json").read_text())
    assert 0 < summary["trainable_parameters"] < summary["parameters"]
    assert summary["epochs_run"] == 1


def test_every_payload_comes_out_of_a_batch_as_it_was_delivered(chain: Chain) -> None:
    manifest = read_manifest(chain.batches)
    payloads = read_payloads(chain.batches, manifest)
    assert [hashlib.sha256(payload).hexdigest() for payload in payloads] == list(manifest["id"])


def test_a_program_takes_an_example_of_what_its_description_says(chain: Chain) -> None:
    program = Program(chain.artifacts / "program")
    assert all(
        np.isfinite(value).all() for value in program.run(**program.one_example()).values() if value.dtype.kind == "f"
    )
    assert program.spec.kind == load_model(chain.root, chain.model).kind_name


@pytest.mark.parametrize("name", known_kinds())
@pytest.mark.parametrize("payload", [b"", b"not what you think\n" * 20, bytes(5000)])
def test_bytes_that_are_no_example_are_refused_in_one_line(name: str, payload: bytes) -> None:
    kind = load_kind(name)
    with pytest.raises(BadExampleError) as refused:
        kind.inspect(Example("x", payload, "a", target=payload), kind.Data())
    assert str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", known_kinds())
def test_a_source_of_something_else_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to learn from")
    kind = load_kind(name)
    with pytest.raises(UserError) as refused:
        list(kind.examples(Source(tmp_path), kind.Data()))
    assert "\n" not in str(refused.value)
