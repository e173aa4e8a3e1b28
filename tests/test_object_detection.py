"""Object detection: boxes follow their pixels, every detector trains and exports, metrics are those of pycocotools."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools import coco as pycoco
from pycocotools.cocoeval import COCOeval
from pydantic import ValidationError

from models.common.data.batches import read_payloads
from models.common.errors import BadExampleError, RatchetError, UserError
from models.common.image.letterbox import Canvas
from models.common.kind import Example, ReportJob, ScoreJob, load_kind
from models.common.objects.annotations import Object, write_target
from models.common.objects.augmentation import augment_boxes
from models.common.objects.dataset import annotations, canvas_of, canvases
from models.common.objects.detections import Detections
from models.common.objects.detector import SinglePicture
from models.common.objects.export import parity, write_detector
from models.common.objects.params import BoxAugment
from models.common.program.program import Program, ProgramSpec
from models.object_detection import networks, scoring, training
from models.object_detection.params import DetectionData, DetectionTrain
from models.object_detection.predictor import Predictor
from models.object_detection.preprocessing import OUTPUTS
from models.object_detection.training import Job
from tasks.package import distributions, service_modules
from tests import detecting
from tests.batching import write_batch
from tests.samples import object_detection as sample

kind = load_kind("object_detection")
DATA = DetectionData(image_size=(128, 96), score_threshold=0.1, max_boxes=30)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty scenes, delivered as VOC, and eight more to be tested on, as COCO."""
    root = tmp_path_factory.mktemp("scenes")
    write_batch(kind, root / "data", "a", sample.write_voc(root / "voc", 0, 40), DATA)
    write_batch(kind, root / "data", "b", sample.write_coco(root / "coco", 40, 48), DATA, "test")
    return root / "data"


@pytest.fixture(scope="module")
def trained(batches: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {"width": 16, "epochs": 7, "batch_size": 4, "learning_rate": 0.01, "augment": {"horizontal_flip": False}}
    job = detecting.job(tmp_path_factory.mktemp("trained"), batches, DATA, **settings)
    kind.train(job)
    return job


@pytest.fixture(scope="module")
def table(trained: Any) -> pd.DataFrame:
    rows = trained.manifest[trained.manifest["split"] == "test"]
    return kind.score(ScoreJob(trained.out / "program", rows, trained.batches, trained.home))


def test_training_learns_and_leaves_a_program_that_agrees(trained: Job) -> None:
    history = pd.read_csv(trained.out / "training" / "history.csv")
    summary = json.loads((trained.out / "training" / "summary.json").read_text())
    assert {"val_loss", "val_map", "val_map50"} <= set(history)
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]
    assert summary["best_epoch"] == history["val_map50"].argmax() + 1
    assert summary["parity_objects"] > 50
    assert summary["parity_max_abs_diff"] < 1e-4
    assert summary["parity_box_px"] < 0.01
    spec = ProgramSpec.load(trained.out / "program")
    assert spec.labels == ("four", "one", "zero")
    assert (spec.input["width"], spec.input["height"]) == (128, 96)


def test_validation_counts_what_evaluation_counts(trained: Job) -> None:
    history = pd.read_csv(trained.out / "training" / "history.csv")
    rows = trained.manifest[trained.manifest["split"] == "val"]
    scored = kind.score(ScoreJob(trained.out / "program", rows, trained.batches, trained.home))
    assert kind.summary(scored, ("four", "one", "zero"))["map50"] == pytest.approx(history["val_map50"].max(), abs=0.05)


def test_a_program_that_answers_otherwise_is_refused(trained: Job, batches: Path) -> None:
    job = replace(
        trained,
        initial=trained.out / "training" / "weights.pt",
        train=trained.train.model_copy(update={"weights": "champion"}),
    )
    learner = training.build(job, CPU)
    single = learner.exportable(OUTPUTS)
    pictures = canvases(job.manifest.head(2), batches, job.home, canvas_of(DATA)).take(np.arange(2))
    assert parity(single, Program(job.out / "program"), pictures)["parity_objects"] > 0
    with torch.no_grad():
        learner.network.head.classification_head.cls_logits.bias += 0.3  # type: ignore[union-attr,operator]
    with pytest.raises(RatchetError, match=r"differs from the network: boxes by up to .* are in one answer alone"):
        parity(single, Program(job.out / "program"), pictures)


def test_map_is_what_pycocotools_says_of_the_same_boxes(table: pd.DataFrame, trained: Job) -> None:
    rows = trained.manifest[trained.manifest["split"] == "test"]
    truth, found = coco_of(annotations(rows, trained.batches), table)
    assert found
    reference = pycoco.COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        reference.dataset = truth
        reference.createIndex()
        judged = COCOeval(reference, reference.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    summary = kind.summary(table, ("four", "one", "zero"))
    assert [summary[name] for name in ("map", "map50", "map75")] == pytest.approx(judged.stats[:3].tolist(), abs=1e-9)
    assert summary["map50"] > 0


def coco_of(truths: list[Any], table: pd.DataFrame) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The truth and the table's boxes as COCO JSON."""
    names = {label: index for index, label in enumerate(("four", "one", "zero"), 1)}
    boxes: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, (truth, row) in enumerate(zip(truths, table.to_dict("records"), strict=True), 1):
        for label, (x1, y1, x2, y2) in zip(truth.labels, truth.boxes.tolist(), strict=True):
            box = {"id": len(boxes) + 1, "image_id": number, "category_id": names[label], "iscrowd": 0}
            boxes.append(box | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
        corners = np.reshape(row["detected_box"], (-1, 4)).tolist()
        for label, score, (x1, y1, x2, y2) in zip(row["detected_label"], row["detected_score"], corners, strict=True):
            one = {"image_id": number, "category_id": names[label], "score": score}
            found.append(one | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    images = [{"id": number, "width": sample.WIDTH, "height": sample.HEIGHT} for number in range(1, len(truths) + 1)]
    categories = [{"id": number, "name": label} for label, number in names.items()]
    return {"images": images, "annotations": boxes, "categories": categories}, found


def test_the_service_answers_what_the_evaluation_found(table: pd.DataFrame, trained: Job) -> None:
    predictor = Predictor(trained.out / "program")
    rows = trained.manifest[trained.manifest["split"] == "test"]
    told = 0
    records: list[Any] = table.to_dict("records")
    for row, payload in zip(records, read_payloads(trained.batches, rows), strict=True):
        expected, answer = kind.SERVICE.expected(row, predictor.labels), predictor.predict(payload)
        assert kind.SERVICE.differs(expected, answer, 1e-4) == ""
        assert (answer["width"], answer["height"]) == (128, 96)
        assert all(one["score"] >= 0.1 for one in answer["objects"])
        told += len(answer["objects"])
    assert told
    with pytest.raises(BadExampleError, match="not an image"):
        predictor.predict(b"hello")


def test_boxes_are_answered_in_px_of_the_picture_whatever_its_size(trained: Job) -> None:
    _, picture, _ = sample.scenes(41, 42)[0]
    answers = []
    for factor in (1, 3):
        out = io.BytesIO()
        Image.fromarray(np.kron(picture, np.ones((factor, factor, 1), np.uint8))).save(out, "png")
        answers.append(Predictor(trained.out / "program").predict(out.getvalue()))
    small, large = (answer["objects"][0] for answer in answers)
    assert answers[1]["width"] == 3 * answers[0]["width"]
    assert np.array(large["box"]) == pytest.approx(3 * np.array(small["box"]), abs=6)


def test_agreement_forgives_close_calls_and_nothing_else() -> None:
    one = {"label": "cat", "score": 0.9, "box": [10.0, 10.0, 50.0, 50.0]}
    expected = {"threshold": 0.5, "objects": [one]}

    def said(*objects: dict[str, Any]) -> str:
        return kind.SERVICE.differs(expected, {"objects": list(objects)}, 1e-3)

    close = {"label": "dog", "score": 0.505, "box": [0.0, 0.0, 9.0, 9.0]}
    assert said(one) == said(one, close) == said(one | {"score": 0.9005}) == ""
    assert said(one | {"box": [14.0, 10.0, 54.0, 50.0], "score": 0.903}) == ""  # another box of the same object
    assert said() == "cat (0.9000) at (10.0, 10.0, 50.0, 50.0) is missing"
    assert "is missing" in said(one | {"score": 0.8})
    assert "is missing" in said(one | {"box": [60.0, 10.0, 90.0, 50.0]})
    assert "is missing" in said(one | {"label": "dog"})
    assert "was not expected" in said(one, close | {"score": 0.6})
    assert kind.SERVICE.differs(expected, {"error": "?"}, 1e-3) == "{'error': '?'} instead of objects"


def test_every_box_stays_on_its_object_through_augmentation() -> None:
    """A white rectangle on black in each picture: after any change the box is where the white is."""
    torch.manual_seed(0)
    count, height, width = 40, 96, 128
    pictures = torch.zeros(count, height, width, 3, dtype=torch.uint8)
    boxes = torch.zeros(count, 2, 4)
    for index, (x, y) in enumerate(torch.randint(20, 50, (count, 2)).tolist()):
        pictures[index, y : y + 30, x : x + 40] = 255
        boxes[index, 0] = torch.tensor([x, y, x + 40, y + 30])
    classes = torch.tensor([[0, -1]] * count)
    look = BoxAugment(vertical_flip=True, scale=0.4, shift=0.2, brightness=0, contrast=0)
    changed, moved, kept = augment_boxes(pictures, boxes, classes, look, torch.zeros(3))
    seen = 0
    for picture, box, label in zip(changed, moved[:, 0], kept[:, 0], strict=True):
        if label < 0:
            continue
        white = torch.nonzero(picture[..., 0] > 127)
        low, high = white.amin(0), white.amax(0) + 1
        found = torch.stack([low[1], low[0], high[1], high[0]]).float()
        assert (found - box).abs().max() <= 1.5
        seen += 1
    assert seen > 30
    assert (kept[:, 1] == -1).all()
    assert moved[:, 0].std(0).min() > 5


def test_a_mosaic_cuts_boxes_where_it_cuts_pictures() -> None:
    torch.manual_seed(1)
    pictures = torch.full((8, 64, 64, 3), 255, dtype=torch.uint8)
    boxes, classes = torch.tensor([[[0.0, 0, 64, 64]]] * 8), torch.arange(8)[:, None]
    _, moved, kept = augment_boxes(
        pictures, boxes, classes, BoxAugment(mosaic=1.0, brightness=0, contrast=0), torch.zeros(3)
    )
    areas = torch.where(kept >= 0, (moved[..., 2:] - moved[..., :2]).prod(-1), 0).sum(1)
    assert (kept >= 0).any()
    assert (areas <= 64 * 64 + 1).all()  # quarters do not overlap
    assert moved.min() >= 0
    assert moved.max() <= 64


def test_a_canvas_keeps_the_aspect_or_stretches_and_boxes_come_back() -> None:
    out = io.BytesIO()
    Image.new("RGB", (200, 100), "white").save(out, "png")
    for keep, inner in ((True, (64, 32)), (False, (64, 64))):
        canvas = Canvas(64, 64, keep, 10**6)
        pixels, size = canvas.letterbox(out.getvalue())
        assert (size, canvas.resized_size(*size)) == ((200, 100), inner)
        assert (pixels[: inner[1]] == 255).all()
        assert (pixels[inner[1] :] == (124, 116, 104)).all()
        box = np.array([[20.0, 10.0, 100.0, 90.0]], np.float32)
        assert canvas.to_image_coordinates(box * canvas.scale(*size), *size) == pytest.approx(box)
    assert canvas.to_image_coordinates(np.array([[-5.0, 0, 99, 99]], np.float32), 200, 100).tolist() == [
        [0, 0, 200, 100]
    ]


def test_a_rotated_photo_is_letterboxed_as_it_is_shown() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "white").save(out, "jpeg", exif=exif)
    pixels, size = Canvas(64, 64, True, 10**6).letterbox(out.getvalue())
    assert size == (40, 80)
    assert (pixels[:, :32] > 250).all()
    assert not (pixels[:, 32:] > 250).any()


def example(*objects: Object, width: int = 64, height: int = 48, payload: bytes | None = None) -> Example:
    if payload is None:
        out = io.BytesIO()
        Image.new("RGB", (64, 48), "grey").save(out, "png")
        payload = out.getvalue()
    return Example("a.png", payload, target=write_target(width, height, objects))


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((10, 10, 70, 40), "leaves the picture of 64 x 48 px by more than 2 px"),
        ((-9, 10, 30, 40), "leaves the picture"),
        ((30, 10, 10, 40), "is inverted; x1 must be below x2, and y1 below y2"),
        ((10, 10, 10, 40), "has no area"),
    ],
)
def test_a_bad_box_is_one_clear_line(box: tuple[float, float, float, float], said: str) -> None:
    with pytest.raises(BadExampleError, match=rf"^object 1 \('cat'\): its box \(.*\) {said}"):
        kind.inspect(example(Object("cat", box)), DATA)


def test_other_bad_examples_are_one_clear_line_each() -> None:
    good = Object("cat", (1, 1, 20, 20))
    with pytest.raises(BadExampleError, match=r"object 1 is a 'cat', which is not one of data.labels \(dog\)"):
        kind.inspect(example(good), DATA.model_copy(update={"labels": ("dog",)}))
    with pytest.raises(BadExampleError, match="annotated as 48 x 64 px, but the picture has 64 x 48"):
        kind.inspect(example(good, width=48, height=64), DATA)
    with pytest.raises(BadExampleError, match="not an image"):
        kind.inspect(example(good, payload=b"no picture"), DATA)
    with pytest.raises(BadExampleError, match="it has no annotation"):
        kind.inspect(Example("a.png", example().payload), DATA)


def test_a_picture_is_recorded_with_its_boxes_also_one_without_any() -> None:
    seen = kind.inspect(
        example(
            Object("cat", (0, 0, 20, 10)), Object("cat", (-1.5, 5, 30, 49)), Object("dog", (1, 1, 9, 9), crowd=True)
        ),
        DetectionData(image_size=128),
    )
    assert set(seen) == set(kind.COLUMNS)
    assert (seen["boxes"], json.loads(seen["classes"]), seen["smallest_box"]) == (2, {"cat": 2}, 20.0)
    empty = kind.inspect(example(), DATA)
    assert (empty["boxes"], empty["classes"], empty["smallest_box"]) == (0, "{}", None)


def test_expectations_see_a_class_that_is_tested_but_never_learnt_and_boxes_of_another_size() -> None:
    rows = (
        [("train", "a", '{"cat": 1}', 20.0)] * 50
        + [("test", "b", '{"dog": 1}', 200.0)] * 50
        + [("train", "a", "{}", None)]
    )
    manifest = pd.DataFrame(rows, columns=["split", "batch", "classes", "smallest_box"])
    manifest = manifest.assign(
        width=64, height=48, boxes=1, phash=np.arange(len(rows), dtype=np.uint64) << np.uint64(20)
    )
    assert all(each.remedy for each in kind.expectations(DATA, manifest))
    assert list(manifest["has_known_classes"]) == [split == "train" for split, *_ in rows]
    assert manifest["box_drift"].max() > DATA.max_drift


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_size": 100}, "multiple of 32"),
        ({"weights": "imagenet"}, "backbone: small has no imagenet weights"),
        ({"weights": "coco"}, "there are no coco weights of fcos-small; there are of: ssdlite, retinanet-resnet50"),
        ({"mixup": 0.2}, "mixup\n  Extra inputs are not permitted"),
        ({"backbone": "vgg"}, "'small', 'resnet18'"),
    ],
)
def test_params_that_contradict_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        (DetectionData if "image_size" in given else DetectionTrain)(**given)


def test_data_that_cannot_be_trained_on_is_refused_in_one_line(tmp_path: Path, batches: Path) -> None:
    job = detecting.job(tmp_path, batches, DATA)
    manifest = job.manifest
    for rows, said in (
        (manifest.assign(classes="{}"), "no training picture has any"),
        (manifest[manifest["split"] != "val"], "No picture of the validation split has an object"),
        (
            pd.concat([manifest, manifest[manifest["split"] == "val"].assign(classes='{"nine": 1}')]),
            "Class 'nine' is in",
        ),
        (
            manifest[manifest["split"] == "train"].head(1).assign(classes='{"nine": 1}'),
            "Too few training objects: 'nine' has 1",
        ),
    ):
        with pytest.raises(UserError, match=said):
            kind.train(replace(job, manifest=rows))


SMALL = [{"network": "retinanet"}, {"network": "fasterrcnn"}]
LARGE = [
    {"network": "ssdlite"},
    *({"network": network, "backbone": "resnet18"} for network in ("retinanet", "fcos", "fasterrcnn")),
    *({"network": network, "backbone": "mobilenet_v3_large"} for network in ("retinanet", "fcos", "fasterrcnn")),
    {"network": "fcos", "backbone": "resnet34"},
    {"network": "fasterrcnn", "backbone": "resnet50"},
]


@pytest.mark.parametrize(
    "design",
    [*SMALL, *(pytest.param(each, marks=pytest.mark.slow) for each in LARGE)],
    ids=lambda each: "-".join(each.values()),
)
def test_each_detector_trains_and_its_program_agrees(design: dict[str, str], tmp_path: Path, batches: Path) -> None:
    job = detecting.job(tmp_path, batches, DATA, **design, epochs=1, warmup_epochs=0, dropout=0.1)
    few = pd.concat([rows.head(6) for _, rows in job.manifest.groupby("split")])
    kind.train(replace(job, manifest=few))
    scored = kind.score(ScoreJob(job.out / "program", few[few["split"] == "test"], batches, job.home))
    assert set(scored["detected_label"].explode().dropna()) <= {"four", "one", "zero"}
    network = networks.build(job.train, DATA, 3).eval()
    with torch.no_grad():
        for layer in networks.class_layers(job.train, network):
            layer.bias += 3.0  # type: ignore[operator,assignment]  # sure enough of something to be compared
    single = SinglePicture(networks.detector(network, job.train), OUTPUTS).eval()
    pictures = canvases(few, batches, job.home, canvas_of(DATA)).take(np.arange(4))
    write_detector(single, pictures[:1], ProgramSpec.load(job.out / "program"), job.out / "program")
    assert parity(single, Program(job.out / "program"), pictures)["parity_objects"] > 0


def design_of(**given: Any) -> DetectionTrain:
    return DetectionTrain(**{"weights": "champion", "width": 8, **given})


def write_weights(path: Path, train: DetectionTrain, labels: list[str]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = networks.build(train, DATA, len(labels)).state_dict()
    torch.save({"network": train.design, "labels": labels, "state": state}, path)
    return state


@pytest.mark.parametrize(
    ("design", "layer", "after"),
    [
        ({"network": "fcos"}, "head.classification_head.cls_logits.weight", 1),
        ({"network": "retinanet"}, "head.classification_head.cls_logits.bias", 1),
        ({"network": "fasterrcnn"}, "roi_heads.box_predictor.bbox_pred.weight", 4),
        ({"network": "fasterrcnn"}, "roi_heads.box_predictor.cls_score.weight", 1),
    ],
)
def test_a_champions_classes_keep_their_rows_when_a_class_is_added(
    tmp_path: Path, design: dict[str, str], layer: str, after: int
) -> None:
    train = design_of(**design)
    before = write_weights(tmp_path / "w.pt", train, ["cat", "dog"])
    network = networks.build(train, DATA, 3)
    fresh = network.state_dict()[layer].clone()
    networks.load_initial(network, train, ("ape", "cat", "dog"), tmp_path / "w.pt")
    first = networks.first_label(train)
    rows = (-1, 3 + first, after)
    new, old, own = (
        tensor.flatten(1).mean(1) if tensor.ndim > 1 else tensor
        for tensor in (network.state_dict()[layer], before[layer], fresh)
    )
    new, old, own = new.view(rows), old.view(-1, 2 + first, after), own.view(rows)
    assert torch.equal(new[:, first + 1 :], old[:, first:])
    assert torch.equal(new[:, first], own[:, first])
    assert torch.equal(new[:, :first], old[:, :first])
    stem = "backbone.body.stem.0.weight"
    assert torch.equal(network.state_dict()[stem], before[stem])


def test_weights_of_another_design_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.pt", design_of(), ["cat"])
    for train, said in (
        (design_of(network="retinanet"), "holds a fcos-small, params say retinanet-small"),
        (design_of(width=16), "does not fit the network: .* tensors are missing or of another shape"),
    ):
        network = networks.build(train, DATA, 1)
        with pytest.raises(UserError, match=said):
            networks.load_initial(network, train, ("cat",), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("weights", "design"), [("imagenet", {"backbone": "resnet18"}), ("coco", {"network": "ssdlite"})]
)
def test_weights_that_cannot_be_downloaded_say_which_file_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: str, design: dict[str, str]
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    train = design_of(weights=weights, **design)
    network = networks.build(train, DATA, 2)
    with pytest.raises(UserError, match=r"could not be downloaded .* put .*\.pth \(from https"):
        networks.load_initial(network, train, ("a", "b"), None)


def test_a_frozen_trunk_stays_and_the_rest_learns(tmp_path: Path, batches: Path) -> None:
    train = design_of()
    state = write_weights(tmp_path / "w.pt", train, ["four", "one", "zero"])
    settings = {"weights": "champion", "unfreeze": "head", "epochs": 1, "warmup_epochs": 0}
    job = replace(detecting.job(tmp_path, batches, DATA, **settings), initial=tmp_path / "w.pt")
    kind.train(replace(job, manifest=pd.concat([rows.head(6) for _, rows in job.manifest.groupby("split")])))
    after = torch.load(job.out / "training" / "weights.pt", weights_only=True)["state"]
    same = {name for name in state if torch.equal(state[name], after[name])}
    assert all(name in same for name in state if name.startswith("backbone.body."))
    assert not same & {"backbone.fpn.inner_blocks.0.0.weight", "head.regression_head.bbox_reg.weight"}


def test_a_row_says_of_each_object_whether_it_was_found_or_taken_for_something_else() -> None:
    truth = kind_annotation(
        Object("cat", (0, 0, 20, 20)), Object("dog", (30, 0, 50, 20)), Object("cat", (0, 26, 20, 46))
    )
    seen = Detections(
        64,
        48,
        np.array([[0, 0, 20, 21], [30, 0, 50, 20], [30, 0, 49, 20]], np.float32),
        np.array([0.9, 0.8, 0.4], np.float32),
        np.array([0, 0, 1]),
    )
    row = scoring.scored_row(truth, seen, ("cat", "dog"))
    assert row["classes"] == ["cat", "dog"]
    assert row["object_score"] == pytest.approx([0.9, 0.4, 0.0])
    assert row["object_taken_for"] == ["", "cat", ""]
    table = pd.DataFrame([row | {"threshold": 0.5}])
    told = kind.summary(table, ("cat", "dog"))
    assert (told["recall"], told["precision"], told["recall_small"]) == (1 / 3, 1 / 2, 1 / 3)
    assert told["ap50_dog"] == pytest.approx(1.0)


def kind_annotation(*objects: Object) -> Any:
    from models.common.objects.annotations import parse_target

    return parse_target(write_target(64, 48, objects))


def test_weights_of_coco_are_known_to_the_stage_that_trains() -> None:
    train = DetectionTrain(network="ssdlite", weights="coco")
    assert train.weights in train.WEIGHT_SOURCES
    assert "pretrained" not in train.WEIGHT_SOURCES  # a source that this kind would silently ignore


def test_the_report_shows_curves_tables_and_the_worst_pictures(trained: Job, table: pd.DataFrame) -> None:
    labels = ("four", "one", "zero")
    worst = {section.title: section.html for section in kind.report(report_job(trained, table, labels))}
    assert list(worst) == ["Precision and recall", "Objects by class", "Objects by size", "Worst pictures"]
    assert worst["Precision and recall"].count("<svg") == 3
    assert worst["Objects by class"].count("<tr>") == 4
    assert "found by the champion" in worst["Objects by size"]
    assert 0 < worst["Worst pictures"].count("<image") <= 8
    gone = replace(report_job(trained, table, labels), champion=None, batches=trained.batches / "elsewhere")
    assert "dvc pull" in kind.report(gone)[3].html


def report_job(trained: Job, table: pd.DataFrame, labels: tuple[str, ...]) -> ReportJob:
    return ReportJob(table, table, labels, trained.manifest, trained.batches)


def test_the_bento_needs_only_what_its_predictor_imports() -> None:
    modules = service_modules("object_detection")
    assert "models.common.params" not in modules
    assert not distributions(modules) & {"pycocotools", "pydantic", "pandas", "torch"}
