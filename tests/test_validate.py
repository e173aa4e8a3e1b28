"""Validation: what blocks, what warns, which files stay. Great Expectations for real, over small manifests."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.common.data.drift import batch_drift
from models.common.errors import DataBlockedError, UserError
from models.image_classification.params import ImageData
from tasks import validate as module
from tasks.add import add
from tasks.validate import CheckResult, validate
from tasks.validation.checks import common_expectations
from tests.conftest import git


def manifest(rows: int = 120) -> pd.DataFrame:
    """Two balanced classes of 32 px photos in two batches; nothing wrong with it."""
    rng = np.random.default_rng(0)
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "id": [f"{n:064x}" for n in number],
            "file_name": [f"{n}.png" for n in number],
            "label": np.where(number % 2, "cat", "dog"),
            "split": np.select([number % 12 < 2, number % 12 < 5], ["val", "test"], "train"),
            "group": [f"{n:064x}" for n in number],
            "source": "a.zip",
            "width": np.int32(32),
            "height": np.int32(32),
            "phash": rng.integers(0, 2**64, rows, dtype=np.uint64),
            "batch": np.where(number < rows // 2, "a-1", "b-2"),
            "row": number % (rows // 2),
        }
    )


def failing(project: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> dict[str, CheckResult]:
    """Every check that fails on a manifest, by name, whether it blocks or warns."""
    monkeypatch.setattr(module, "read_manifest", lambda folder: frame.copy())
    try:
        checks = validate(project, "digits")
    except DataBlockedError:
        stored = json.loads((project / "artifacts/digits/validation/results.json").read_text())
        checks = [CheckResult(**row) for row in stored]
    return {check.name: check for check in checks if not check.success}


def test_good_data_passes_and_the_same_data_gives_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failing(project, manifest(), monkeypatch) == {}
    out = project / "artifacts/digits/validation"
    copied = project / ".ratchet/validation/digits"
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert set(map(str, files)) == {"passed.json", "results.json", "data_docs/index.html"}
    assert all((copied / name).read_bytes() == files[Path(name)] for name in ("results.json", "data_docs/index.html"))
    shutil.rmtree(out)
    failing(project, manifest(), monkeypatch)
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == files


def test_data_docs_need_no_network(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = manifest()
    frame.loc[0, "label"] = "<script>alert(1)</script>"
    failing(project, frame, monkeypatch)
    page = (project / "artifacts/digits/validation/data_docs/index.html").read_text()
    assert not re.search(r"(?:src|href)=.?(?:https?:)?//|@import|url\(", page)
    assert "<script" not in page
    assert "values must belong to this set" in page  # what Great Expectations itself renders is there


BLOCKS = {
    "one label per example": lambda frame: frame.assign(id=frame["id"].where(frame["row"] != 3, "0" * 64)),
    "no group in two splits": lambda frame: frame.assign(group=frame["group"].where(frame["row"] > 9, "scene")),
    "at least two classes": lambda frame: frame.assign(label="cat"),
    "train and test splits have examples": lambda frame: frame.assign(split="train"),
    "every class can be learnt": lambda frame: frame.assign(label=frame["label"].where(frame.index != 7, "lemur")),
    "splits are train, val or test": lambda frame: frame.assign(split=frame["split"].replace("val", "dev")),
    "every example has a label": lambda frame: frame.assign(label=frame["label"].where(frame["row"] > 0)),
    "ids are content hashes": lambda frame: frame.assign(id=frame["file_name"]),
    "pictures are not too small": lambda frame: frame.assign(width=2),
    "every column is there": lambda frame: frame.drop(columns="phash"),
}
WARNS = {
    "every class is tested": lambda frame: frame.assign(
        split=frame["split"].where((frame["split"] != "test") | (frame["label"] == "cat"), "train")
    ),
    "classes are balanced": lambda frame: frame.iloc[[*range(0, 120, 2), 5, 7]].reset_index(drop=True),
    "labels as before": lambda frame: frame.assign(
        label=np.where(frame["row"] % 8 < (frame["batch"] == "b-2") * 6 + 1, "cat", "dog")
    ),
    "picture sizes as before": lambda frame: frame.assign(width=np.where(frame["batch"] == "b-2", 320, 32)),
    "no near-duplicates across splits": lambda frame: frame.assign(phash=np.uint64(7)),
    "val split has examples": lambda frame: frame.assign(split=frame["split"].replace("val", "train")),
    "no example twice": lambda frame: pd.concat([frame, frame.iloc[:3]], ignore_index=True),
}


@pytest.mark.parametrize(
    ("name", "severity"), [(name, "block") for name in BLOCKS] + [(name, "warn") for name in WARNS]
)
def test_each_fault_fails_its_check(project: Path, monkeypatch: pytest.MonkeyPatch, name: str, severity: str) -> None:
    failed = failing(project, (BLOCKS | WARNS)[name](manifest()), monkeypatch)
    assert name in failed
    assert failed[name].severity == severity
    assert failed[name].observed not in {"", "None"}
    assert severity == "block" or all(check.severity == "warn" for check in failed.values())


def test_a_closed_label_set_blocks_other_labels() -> None:
    names = [check.name for check in common_expectations(ImageData(labels=("cat",)), "class", manifest())]
    assert "labels are of the closed set" in names


def test_a_block_is_one_line_with_the_first_row_and_outlives_the_stage(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = BLOCKS["every class can be learnt"](manifest())
    monkeypatch.setattr(module, "read_manifest", lambda folder: frame)
    with pytest.raises(DataBlockedError, match=r"digits's data is blocked by 'every class can be learnt'") as caught:
        validate(project, "digits")
    assert "a-1: 7.png, lemur, train" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Path(str(caught.value).rpartition(" ")[2]).exists()
    assert caught.value.exit_code == 3


def test_the_stage_validates_what_was_added(project: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"digits has no data yet\. Add some: ratchet add digits SOURCE"):
        validate(project, "digits")
    add(project, "digits", digits)
    assert all(check.success or check.severity == "warn" for check in validate(project, "digits"))
    assert "18 checks" in capsys.readouterr().out
    assert not git(project, "status", "--short")


def test_drift_is_what_a_batch_changed() -> None:
    batches = pd.Series(["a"] * 100 + ["b"] * 100)
    same = pd.Series(["cat", "dog"] * 100)
    other = pd.Series(["cat", "dog"] * 50 + ["cat"] * 100)
    assert batch_drift(batches, same).max() == 0
    assert batch_drift(batches, other).max() > 0.2
    assert batch_drift(batches.iloc[:100], same.iloc[:100]).max() == 0  # a first batch has nothing to differ from
    small = pd.Series(["a"] * 100 + ["b"] * 2)
    assert batch_drift(small, pd.Series(["cat", "dog"] * 50 + ["cat"] * 2))[101] < 0.01
