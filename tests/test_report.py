"""The report, made from real evaluations and read as a reader's browser would: one file, nothing to fetch."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from models.common.kind import ReportJob
from models.common.reporting import svg
from models.image_classification.report import report
from tasks.gating.verdict import Verdict
from tasks.judge import judge
from tasks.report import write_report
from tests.judged import champion_of, write_program, write_project

LINEAGE = {
    "candidate": "tidal-ouzo",
    "source commit": "6d0cd32a8f",
    "batches": ["digits-1"],
    "batches added since the champion": ["digits-1"],
    "batches removed since the champion": ["digits-0"],
    "params": {"kind": "image_classification", "train": {"network": "small_cnn"}},
    "environment": {"python": "3.11.9"},
    "reproduce": "ratchet retrain digits --revision 6d0cd32a8f --force",
}
HISTORY = "epoch,train_loss,val_loss,val_accuracy\n1,2.1,1.9,0.3\n2,1.0,0.8,0.8\n3,0.6,0.9,0.7\n"


class Reader(HTMLParser):
    """Text, tags, and every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href", "data", "xlink:href"}]
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def read(page: Path) -> tuple[str, Reader]:
    """The page's text with single spaces, and what the parser saw; every tag is closed."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.open == []
    return " ".join(" ".join(reader.text).split()), reader


@pytest.fixture(scope="module")
def _judged(_template: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(_template, tmp_path_factory.mktemp("judged") / "project", digits)


@pytest.fixture
def judged(_judged: Path, tmp_path: Path) -> Path:
    """A project with an evaluated candidate."""
    return Path(shutil.copytree(_judged, tmp_path / "project", symlinks=True))


def test_against_a_champion_the_verdict_comes_first_and_everything_is_there(judged: Path) -> None:
    folder = judged / "artifacts/digits"
    (folder / "training/history.csv").write_text(HISTORY)
    (folder / "training/summary.json").write_text(json.dumps({"best_epoch": 2, "seconds_per_step": 0.0123}))
    (folder / "validation").mkdir()
    failed = {"name": "no drift", "severity": "warn", "success": False, "observed": "psi 0.4", "remedy": "it moved"}
    (folder / "validation/results.json").write_text(json.dumps([failed]))
    champion = champion_of(judged, examples=1500, noise=3.0)
    verdict = judge(judged, "digits", champion, "v1.2.0")
    text, reader = read(write_report(judged, "digits", verdict, champion, LINEAGE))
    assert text.index("Promote") < text.index(verdict.reasons[0].split(":")[0]) < text.index("Key numbers")
    for expected in ("champion v1.2.0", "Classes and slices", "Confusions", "Confidence", "Worst mistakes"):
        assert expected in text
    assert "12.3 ms" in text
    assert "The training looks sound." in text
    assert re.search(r"accuracy on 100 training examples [01]\.\d{3} on test 0\.\d{3}", text)
    assert "no drift" in text
    assert "digits-0 removed" in text
    assert "ratchet retrain digits --revision 6d0cd32a8f --force" in text
    assert "train.network small_cnn" in text
    assert reader.tags.count("polyline") == 3


def test_a_training_that_went_wrong_is_told_in_the_reasons_and_beside_its_curves(judged: Path) -> None:
    rows = "".join(f"{epoch},{loss},0.9,0.7\n" for epoch, loss in enumerate((2.1, 0.6, 3.0, 9.0), 1))
    (judged / "artifacts/digits/training/history.csv").write_text(f"epoch,train_loss,val_loss,val_accuracy\n{rows}")
    champion = champion_of(judged, examples=1500)
    verdict = judge(judged, "digits", champion, "v1.2.0")
    text, _ = read(write_report(judged, "digits", verdict, champion, LINEAGE))
    assert verdict.outcome == "HOLD"
    assert text.index("the training diverged: its loss was 0.6") < text.index("Key numbers")
    assert text.index("Key numbers") < text.index("The training diverged: its loss was 0.6")


def test_nothing_is_fetched_and_nothing_runs(judged: Path) -> None:
    page = write_report(judged, "digits", judge(judged, "digits", None, None), None, LINEAGE)
    _, reader = read(page)
    assert all(address.startswith("data:image/") for address in reader.addresses)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert "@import" not in page.read_text()
    assert "url(" not in page.read_text()
    assert page.stat().st_size < 2_000_000


def test_the_pictures_of_the_worst_mistakes_are_those_pictures(judged: Path) -> None:
    write_program(judged / "artifacts/digits/program", 60)  # a weak one
    from tasks.evaluate import evaluate

    evaluate(judged, "digits")
    _, reader = read(write_report(judged, "digits", judge(judged, "digits", None, None), None, {}))
    table = pd.read_parquet(judged / "artifacts/digits/evaluation/examples.parquet")
    worst = table[table["correct"] == 0].nlargest(24, "loss")
    assert len(reader.addresses) == len(worst) > 2
    batch = pd.read_parquet(next(iter(judged.glob("data/digits/*.parquet"))))
    delivered = batch.set_index("id").loc[worst["id"].iloc[0], "bytes"]
    shown = base64.b64decode(reader.addresses[0].split(",")[1])
    first, second = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in (delivered, shown))
    assert np.array_equal(first, second)


def test_a_first_model_without_training_history_or_validation_still_has_a_report(judged: Path) -> None:
    text, _ = read(write_report(judged, "digits", judge(judged, "digits", None, None), None, {}))
    assert "The first model of digits goes into production" in text
    assert "came without a training history" in text
    assert "Accuracy of each class, weakest first" in text
    assert "champion v" not in text


def test_without_the_batches_the_report_says_how_to_fetch_the_pictures(judged: Path) -> None:
    verdict = judge(judged, "digits", None, None)
    for path in judged.glob("data/digits/*.parquet"):
        path.unlink()
    write_wrong = pd.read_parquet(judged / "artifacts/digits/evaluation/examples.parquet").assign(correct=0)
    write_wrong.to_parquet(judged / "artifacts/digits/evaluation/examples.parquet", index=False)
    text, _ = read(write_report(judged, "digits", verdict, None, {}))
    assert "dvc pull data/digits/*.dvc" in text


def test_names_from_the_data_cannot_break_the_page(judged: Path) -> None:
    evil = '<script>alert("x")</script>'
    path = judged / "artifacts/digits/evaluation/examples.parquet"
    table = pd.read_parquet(path)
    table.assign(label=evil, prediction="<b>", correct=0).to_parquet(path, index=False)
    verdict = Verdict("ERROR", (f"{evil} is not a label",))
    text, reader = read(write_report(judged, "digits", verdict, None, {"candidate": evil}))
    assert "script" not in reader.tags
    assert evil in text


def made_up(classes: int, examples: int = 3000) -> ReportJob:
    rng = np.random.default_rng(0)
    labels = tuple(f"class {index:03d}" for index in range(classes))
    truth = rng.integers(0, classes, examples)
    guess = np.where(rng.random(examples) < 0.8, truth, rng.integers(0, classes, examples))
    table = pd.DataFrame(
        {
            "id": [str(index) for index in range(examples)],
            "label": np.array(labels)[truth],
            "prediction": np.array(labels)[guess],
            "correct": (truth == guess).astype(np.int8),
            "loss": rng.random(examples),
            "confidence": rng.random(examples),
            "batch": "b",
            "row": 0,
        }
    )
    return ReportJob(table, table, labels, table.assign(file_name=""), Path("data/none"))


def test_more_than_a_hundred_classes_get_their_commonest_confusions_and_no_matrix() -> None:
    html = report(made_up(120))[0].html
    assert "120 classes are too many for a matrix" in html
    assert "<rect" not in html
    assert html.count("<tr>") == 13


@pytest.mark.parametrize("classes", [2, 20, 100])
def test_a_matrix_has_a_cell_for_each_pair_that_occurs(classes: int) -> None:
    job = made_up(classes)
    html = report(job)[0].html
    assert html.count("<rect") == len(job.candidate[["label", "prediction"]].drop_duplicates())
    assert len(html) < 900_000


def test_a_model_without_mistakes_has_a_short_report() -> None:
    job = made_up(3)
    perfect = job.candidate.assign(prediction=job.candidate["label"], correct=1)
    parts = report(ReportJob(perfect, None, job.labels, job.manifest, job.batches))
    assert "No test example was mistaken" in parts[0].html
    assert "every test example was answered rightly" in parts[2].html


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 15, [5, 10, 15]), (0.93, 0.99, [0.94, 0.96, 0.98])],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_a_curve_that_ran_into_nan_is_drawn_as_far_as_it_goes() -> None:
    drawn = svg.line_chart([svg.Line("loss", [(1, 2.0), (2, 1.0), (3, float("nan"))], "candidate")], "epoch")
    assert "nan" not in drawn
    assert re.search(r'points="[\d. ,]+"', drawn)
    assert svg.line_chart([svg.Line("loss", [(1, float("nan"))], "candidate")], "epoch") == ""
