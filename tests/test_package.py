"""Packaging: a real Bento, built, started in a process of its own and smoke-tested."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import psutil
import pytest

from models.common.errors import RatchetError, UserError
from tasks.package import PackageReport, example_requests, package
from tasks.project.params import load_model
from tasks.serve import free_port, running, unpack
from tests.conftest import TINY_PARAMS
from tests.digits import write_digits
from tests.linear import write_candidate

TORCH_FREE = """
import json, sys
sys.path.insert(0, ".")
import service
service.service()
mine = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("models.")}
heavy = {"torch", "torchvision", "lightning", "prefect", "dvc", "great_expectations", "pandas", "onnx", "sklearn"}
print(json.dumps({"mine": mine, "heavy": sorted(heavy & set(sys.modules))}))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as evaluation leaves it."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text(TINY_PARAMS)
    write_candidate(root, "digits", write_digits(tmp_path_factory.mktemp("photos"), 0, 240), size=8)
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> PackageReport:
    (root / ".ratchet/bentos/.packaging-killed").mkdir(parents=True)  # as a killed run leaves it
    return package(root, "digits", "v1.2.0")


@pytest.fixture(scope="module")
def unpacked(report: PackageReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(report.bento, tmp_path_factory.mktemp("bentos"))


def copied(root: Path, to: Path) -> Path:
    return Path(shutil.copytree(root, to / "copy", ignore=shutil.ignore_patterns(".ratchet")))


def test_a_candidate_becomes_a_small_bento_that_has_answered_like_its_evaluation(report: PackageReport) -> None:
    assert report.bento.name == "digits.bento"
    assert report.size_mb < 1
    assert report.requests >= 32 + 12 + 2  # examples, requests that must be refused, examples again


def test_nothing_but_the_bento_is_left_behind(report: PackageReport, root: Path) -> None:
    assert list((root / ".ratchet" / "bentos").iterdir()) == []
    assert sorted(path.name for path in report.bento.parent.iterdir()) == ["digits.bento", "evaluation", "program"]


def test_the_bento_carries_what_serves_and_nothing_that_trains(report: PackageReport) -> None:
    with tarfile.open(report.bento) as archive:
        code = {name.removeprefix("./src/") for name in archive.getnames() if name.endswith(".py")}
    assert code == {
        "service.py",
        "models/__init__.py",
        "models/common/__init__.py",
        "models/common/program/answers.py",
        "models/common/errors.py",
        "models/common/image/__init__.py",
        "models/common/image/decoding.py",
        "models/common/program/__init__.py",
        "models/common/program/program.py",
        "models/common/program/bento_service.py",
        "models/common/program/middleware.py",
        "models/common/program/service.py",
        "models/common/program/settings.py",
        "models/common/classification/__init__.py",
        "models/common/classification/answers.py",
        "models/image_classification/preprocessing.py",
        "models/image_classification/__init__.py",
        "models/image_classification/predictor.py",
    }


def test_every_package_of_the_bento_is_pinned_and_none_of_them_trains(unpacked: Path) -> None:
    lines = (unpacked / "env/python/requirements.txt").read_text().split()
    assert all("==" in line for line in lines)
    names = {line.split("==")[0] for line in lines}
    assert {"bentoml", "onnxruntime", "numpy", "pillow", "starlette"} <= names
    assert not names & {"torch", "torchvision", "lightning", "prefect", "dvc", "great-expectations", "pandas"}


def test_the_service_imports_its_own_models_and_no_torch(unpacked: Path) -> None:
    environment = os.environ | {"BENTOML_HOME": str(unpacked / "home"), "PYTHONPATH": ""}
    command = [sys.executable, "-c", TORCH_FREE]
    done = subprocess.run(command, cwd=unpacked / "src", env=environment, capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout.splitlines()[-1])
    assert imported["heavy"] == []
    assert all(path.startswith(str(unpacked)) for path in imported["mine"].values())


def test_the_bento_says_where_it_comes_from(unpacked: Path) -> None:
    about = (unpacked / "bento.yaml").read_text()
    assert "version: v1.2.0" in about
    assert "commit: abc123" in about


def test_a_bento_that_answers_differently_from_its_evaluation_is_refused(
    report: PackageReport, root: Path, tmp_path: Path
) -> None:
    project = copied(root, tmp_path)
    path = project / "artifacts/digits/evaluation/examples.parquet"
    scores = pd.read_parquet(path)
    scores["probabilities"] = [chances * 0.9995 for chances in scores["probabilities"]]
    scores.to_parquet(path)
    before = hashlib.sha256((project / "artifacts/digits/digits.bento").read_bytes()).digest()
    with pytest.raises(
        RatchetError, match=r"answers differently from the evaluation: probabilities: \w+: 0\.\d+ instead of 0\.\d+"
    ):
        package(project, "digits", "v1.3.0")
    assert hashlib.sha256((project / "artifacts/digits/digits.bento").read_bytes()).digest() == before
    assert list((project / ".ratchet" / "bentos").iterdir()) == []
    assert not [child for child in psutil.Process().children(recursive=True) if "bentoml" in " ".join(child.cmdline())]


def test_a_service_refuses_to_start_where_its_golden_examples_come_out_otherwise(
    unpacked: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unpacked, tmp_path / "tampered"))
    path = folder / "src/golden/answers.json"
    answers = json.loads(path.read_text())
    answers[0]["expected"]["probabilities"] = dict.fromkeys(answers[0]["expected"]["probabilities"], 0.1)
    path.write_text(json.dumps(answers))
    with (
        pytest.raises(RatchetError, match=r"golden example 0\.image"),
        running(folder, "127.0.0.1", free_port(), log=tmp_path / "log"),
    ):
        pytest.fail("it started")


def test_smoke_test_requests_cover_every_label(root: Path) -> None:
    requests = example_requests(root, load_model(root, "digits"))
    assert len(requests) == 32
    chances = [request.expected["probabilities"] for request in requests]
    assert len({max(row, key=row.__getitem__) for row in chances}) == 10


def test_a_model_that_was_not_evaluated_is_refused_with_the_command_that_does(root: Path, tmp_path: Path) -> None:
    project = copied(root, tmp_path)
    (project / "artifacts/digits/evaluation/examples.parquet").unlink()
    with pytest.raises(UserError, match="dvc repro evaluate@digits"):
        package(project, "digits", "v1.3.0")


def test_test_examples_that_are_not_in_this_clone_are_refused_with_the_command_that_fetches_them(
    root: Path, tmp_path: Path
) -> None:
    project = copied(root, tmp_path)
    (project / "data/digits/first.parquet").unlink()
    with pytest.raises(UserError, match="dvc pull"):
        package(project, "digits", "v1.3.0")
