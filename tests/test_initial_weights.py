"""What training starts from is an input of the stage: DVC runs both for real here, on a tiny network."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.common.errors import UserError
from tasks.add import add
from tasks.initial_weights import initial_weights
from tasks.project.registry import register_and_assign
from tasks.project.repository import environment
from tasks.project.stages import reproduce
from tasks.train import train
from tests.conftest import git
from tests.test_structure import HEAVY, STAGES

OUT = Path("artifacts/digits/initial_weights")
WEIGHTS = Path("artifacts/digits/training/weights.pt")


def set_weights(project: Path, weights: str) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("network: small_cnn,", f"network: small_cnn, weights: {weights},"))


def run(project: Path, stage: str) -> bool:
    return reproduce(project, stage, "digits", lambda line, _: print(line))


@pytest.fixture(scope="module")
def _trained(_template: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Path(shutil.copytree(_template, tmp_path_factory.mktemp("trained") / "project", symlinks=True))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 3", "epochs: 1"))
    add(project, "digits", digits)
    passed = (
        project / "artifacts/digits/validation/passed.json"
    )  # validation takes as long again, and is not the matter
    passed.parent.mkdir(parents=True)
    passed.write_text("{}")
    assert run(project, "train")
    return project


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """A project whose model DVC has trained from nothing."""
    return Path(shutil.copytree(_trained, tmp_path / "project", symlinks=True))


def bring_champion(project: Path, shift: float) -> None:
    """A champion as the flow brings it; `shift` makes each its own."""
    folder = project / "artifacts/digits/champion/training"
    folder.mkdir(parents=True, exist_ok=True)
    saved = torch.load(project / WEIGHTS, weights_only=True)
    saved["state"]["classifier.bias"] += shift
    torch.save(saved, folder / "weights.pt")


def test_two_champions_to_start_from_are_two_trainings_and_never_one_out_of_the_cache(trained: Path) -> None:
    set_weights(trained, "champion")
    champions = {}
    for name, shift in (("first", 1.0), ("second", 2.0)):
        bring_champion(trained, shift)
        champions[name] = (trained / "artifacts/digits/champion/training/weights.pt").read_bytes()
    results = []
    for name, anew in (("first", True), ("second", True), ("first", False)):
        (trained / "artifacts/digits/champion/training/weights.pt").write_bytes(champions[name])
        assert run(trained, "train") == anew, name
        assert (trained / OUT / "weights.pt").read_bytes() == champions[name]
        results.append((trained / WEIGHTS).read_bytes())
    assert results[0] != results[1]
    assert results[0] == results[2]


def test_with_weights_none_a_second_run_trains_nothing_anew(trained: Path) -> None:
    before = (trained / WEIGHTS).stat().st_mtime_ns
    assert [path.name for path in (trained / OUT).iterdir()] == ["origin.json"]
    assert not run(trained, "train")
    assert (trained / WEIGHTS).stat().st_mtime_ns == before


def test_without_a_run_the_champions_weights_come_from_the_registry(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_weights(trained, "champion")
    initial_weights(trained, "digits")
    assert "digits has no champion to start from" in capsys.readouterr().err
    assert json.loads((trained / OUT / "origin.json").read_text())["starts_from"] == "nothing"
    git(trained, "add", "--force", "dvc.lock")
    git(trained, "commit", "--quiet", "--message=a candidate")
    register_and_assign(trained, "digits", git(trained, "rev-parse", "HEAD"), None)
    expected = (trained / WEIGHTS).read_bytes()
    initial_weights(trained, "digits")
    assert (trained / OUT / "weights.pt").read_bytes() == expected
    assert json.loads((trained / OUT / "origin.json").read_text())["starts_from"] == "the champion"


def test_weights_of_a_file_are_copied_and_a_missing_file_says_what_is_allowed(project: Path) -> None:
    set_weights(project, "mine/start.pt")
    with pytest.raises(
        UserError, match=r"there is no file .*mine/start\.pt\. Allowed: auto, none, imagenet, champion, or the path"
    ):
        initial_weights(project, "digits")
    (project / "mine").mkdir()
    (project / "mine/start.pt").write_bytes(b"weights")
    initial_weights(project, "digits")
    assert (project / OUT / "weights.pt").read_bytes() == b"weights"


def test_a_training_without_the_stage_before_it_says_how_to_run_that(trained: Path) -> None:
    shutil.rmtree(trained / OUT)
    with pytest.raises(UserError, match=r"initial_weights is missing\. Make it: dvc repro .*initial_weights@digits"):
        train(trained, "digits")


def test_the_stage_that_always_runs_imports_nothing_heavy(project: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['initial_weights', 'digits']\n"
        "runpy.run_module('tasks.initial_weights', run_name='__main__')\n"
        f"print([name for name in {(*HEAVY, 'pyarrow')!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


RUNS_AGAIN = {  # a changed file -> the stages that have to run again, what depends on their results aside
    "models/common/reporting/svg.py": set(),
    "models/image_classification/report.py": set(),
    "tasks/gating/gate.py": set(),
    "models/image_classification/predictor.py": set(),
    "tasks/validation/data_docs.py": {"validate"},
    "models/image_classification/scoring.py": {"evaluate"},
    "models/common/training/loop.py": {"train"},
    "models/image_classification/preprocessing.py": {"validate", "train", "evaluate"},
    "requirements.txt": {"validate", "train", "evaluate"},
}


def test_a_change_makes_that_run_again_which_it_concerns(trained: Path) -> None:
    for stage in ("validate", "train", "evaluate"):
        run(trained, stage)
    changed = {}
    for name in RUNS_AGAIN:
        before = (trained / name).read_text()
        (trained / name).write_text(before + "\n# changed\n")
        command = [sys.executable, "-m", "dvc", "status", "--json", *(f"{stage}@digits" for stage in STAGES)]
        done = subprocess.run(command, cwd=trained, env=environment(), capture_output=True, text=True, check=True)
        changed[name] = {stage.split("@")[0] for stage in json.loads(done.stdout)} - {"initial_weights"}
        (trained / name).write_text(before)
    assert changed == RUNS_AGAIN

    template = trained / "tasks/validation/data_docs.html.j2"  # and a page that looks otherwise trains nothing anew
    template.write_text(template.read_text().replace("</body>", "<p>another look</p></body>"))
    assert run(trained, "validate")
    assert "another look" in (trained / "artifacts/digits/validation/data_docs/index.html").read_text()
    assert not run(trained, "train")
