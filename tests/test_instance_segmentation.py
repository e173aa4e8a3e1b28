"""Instance segmentation: bad masks, masks that come back as they were, average precision, training, and its program."""

import contextlib
import io
import json
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
from torchvision.models import get_model

from models.common.data.batches import read_manifest
from models.common.errors import BadExampleError, RatchetError, UserError
from models.common.image.letterbox import Canvas
from models.common.kind import Example, ReportJob, ScoreJob, TrainJob, load_kind
from models.common.objects import backbones, weights
from models.common.objects.annotations import Object, parse_target, write_target
from models.common.objects.dataset import canvas_of, canvases
from models.common.objects.detections import describe_detections, read_detections
from models.common.objects.export import parity
from models.common.objects.masks import Rle, encode, from_crop
from models.common.program.program import Program
from models.instance_segmentation import networks
from models.instance_segmentation.learner import mask_targets
from models.instance_segmentation.params import InstanceData, InstanceTrain
from models.instance_segmentation.predictor import Predictor
from models.instance_segmentation.preprocessing import OUTPUTS
from models.instance_segmentation.training import Job, build
from tasks.package import distributions, service_modules
from tests.batching import write_batch
from tests.samples import instance_segmentation as sample
from tests.test_masks import filled

kind = load_kind("instance_segmentation")
DATA = InstanceData(**sample.TINY["data"])
TRAIN = {**sample.TINY["train"], "epochs": 1, "warmup_epochs": 0}


def picture(width: int = 40, height: int = 30) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(out, "png")
    return out.getvalue()


def block(left: int, top: int, right: int, bottom: int, width: int = 40, height: int = 30) -> Rle:
    return from_crop(np.ones((bottom - top, right - left), bool), left, top, height, width)


def example(*found: Object, width: int = 40, height: int = 30) -> Example:
    return Example("a.png", picture(), target=write_target(width, height, found))


def cat(mask: Rle | None, box: tuple[float, float, float, float] = (5, 5, 15, 15), **more: bool) -> Object:
    return Object("cat", box, mask=mask, **more)


# --- what is refused, and what is recorded


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (cat(None), "object 1 ('cat') has no mask"),
        (cat(block(5, 5, 15, 15, 30, 40)), "has a mask of 30 x 40 px, but the picture has 40 x 30"),
        (cat(encode(np.zeros((30, 40), bool))), "has an empty mask"),
        (cat(block(5, 5, 19, 15)), "has a mask that leaves its box by 4.0 px (allowed: 3, data.outside)"),
        (cat(block(5, 1, 15, 15)), "has a mask that leaves its box by 4.0 px"),
        (cat(block(5, 5, 15, 15), (15, 5, 5, 15)), "is inverted"),
        (cat(block(5, 5, 15, 15), (5, 5, 55, 15)), "leaves the picture"),
        (
            Object("cow", (5, 5, 15, 15), mask=block(5, 5, 15, 15)),
            "a 'cow', which is not one of data.labels (cat, dog)",
        ),
    ],
)
def test_bad_masks_are_refused_in_one_line(found: Object, reason: str) -> None:
    with pytest.raises(BadExampleError) as refused:
        kind.inspect(example(found), InstanceData(labels=("cat", "dog")))
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_picture_or_has_no_annotation_is_refused() -> None:
    with pytest.raises(BadExampleError, match="no annotation"):
        kind.inspect(Example("a.png", picture()), InstanceData())
    with pytest.raises(BadExampleError, match="not an image"):
        kind.inspect(Example("a.png", b"text", target=b"{}"), InstanceData())
    with pytest.raises(BadExampleError, match="annotated as 41 x 30 px"):
        kind.inspect(example(width=41), InstanceData())


def test_objects_are_counted_without_crowds() -> None:
    found = cat(block(5, 5, 15, 15)), cat(block(5, 5, 9, 9), (5, 5, 9, 9)), cat(block(5, 5, 7, 7), crowd=True)
    seen = kind.inspect(example(*found), InstanceData(image_size=320))
    assert (seen["width"], seen["height"], seen["objects"], seen["classes"]) == (40, 30, 2, '{"cat": 2}')
    assert seen["smallest_object"] == pytest.approx(4 * 8)
    nothing = kind.inspect(example(), InstanceData())
    assert (nothing["objects"], nothing["classes"], nothing["smallest_object"]) == (0, "{}", None)


def test_what_is_checked_over_all_stands_in_the_manifest() -> None:
    rows = {
        "split": ["train", "train", "test", "val"],
        "batch": ["one", "one", "two", "two"],
        "width": [40] * 4,
        "height": [30] * 4,
        "phash": np.array([1, 2**40, 2**50, 2**60], np.uint64),
        "objects": [1, 0, 1, 120],
        "classes": ['{"cat": 1}', "{}", '{"dog": 1}', '{"cat": 1}'],
        "smallest_object": [20.0, None, None, 2.0],
    }
    manifest = pd.DataFrame(rows)
    checks = {one.name: one for one in kind.expectations(InstanceData(), manifest)}
    assert manifest["has_known_classes"].tolist() == [True, True, False, True]
    assert checks["test and val hold classes that are learnt"].severity == "block"
    assert checks["no more objects than are answered"].kwargs["max_value"] == 100
    assert np.isfinite(manifest["object_drift"]).all()
    for one in checks.values():
        assert one.kwargs["column"] in manifest
    kind.expectations(InstanceData(), pd.DataFrame(rows | {"smallest_object": [None] * 4}))  # no object anywhere


def test_bad_params_are_refused() -> None:
    with pytest.raises(ValidationError, match="no imagenet weights"):
        InstanceTrain(weights="imagenet")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        InstanceTrain(mixup=0.2)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="multiple of 32"):
        InstanceData(image_size=100)


def test_the_samples_masks_come_back_as_they_were_drawn(tmp_path: Path) -> None:
    from models.common.data.sources import Source

    sample.write_scenes(tmp_path, 0, 12)
    written = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    kinds = {type(one["segmentation"]) for one in written} | {
        type(one["segmentation"]["counts"]) for one in written if isinstance(one["segmentation"], dict)
    }
    assert kinds == {list, dict, str}  # polygons, and run lengths in both forms
    for number, one in enumerate(kind.examples(Source(tmp_path), DATA)):
        truth = parse_target(one.target or b"")
        masks = [mask for _, mask in sample.scene(number)[1]]
        assert [mask.counts for mask in truth.masks if mask] == [encode(mask).counts for mask in masks]
        kind.inspect(one, DATA)


# --- training, program, service


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("trained")
    write_batch(kind, root / "data", "first", sample.write_scenes(root / "delivery", 0, 16), DATA)
    job = make_job(root, root / "data")
    kind.train(job)
    return job


def make_job(root: Path, batches: Path, initial: Path | None = None, **train: Any) -> Job:
    manifest = read_manifest(batches)
    settings = InstanceTrain(**{**TRAIN, **train})
    return TrainJob("m", DATA, settings, manifest, batches, root / "out", root / "home", initial, {"model": "m"})


@pytest.fixture(scope="module")
def table(trained: Job) -> pd.DataFrame:
    return kind.score(ScoreJob(trained.out / "program", trained.manifest, trained.batches, trained.home))


def test_the_program_says_what_the_network_says(trained: Job) -> None:
    summary = json.loads((trained.out / "training/summary.json").read_text())
    assert summary["parity_objects"] > 20
    assert summary["parity_alone"] <= 1
    assert summary["parity_max_abs_diff"] < 1e-4
    assert summary["parity_mask"] < 1e-3


def test_a_program_that_answers_otherwise_is_refused(trained: Job, tmp_path: Path) -> None:
    job = make_job(tmp_path, trained.batches, trained.out / "training/weights.pt", weights="champion")
    learner = build(job, torch.device("cpu"))
    single, program = learner.exportable(OUTPUTS), Program(trained.out / "program")
    pictures = canvases(job.manifest.head(4), job.batches, job.home, canvas_of(DATA)).take(np.arange(4))
    assert parity(single, program, pictures)["parity_objects"] > 0
    predictor: Any = learner.network.get_submodule("roi_heads.mask_predictor.mask_fcn_logits")
    with torch.no_grad():
        predictor.bias += 0.5
    with pytest.raises(RatchetError, match=r"differs from the network: .* masks by up to 0"):
        parity(single, program, pictures)


def test_the_program_takes_a_picture_in_which_there_is_nothing(trained: Job) -> None:
    spoiled = Predictor(trained.out / "program")
    out = io.BytesIO()
    Image.new("RGB", (300, 20), "black").save(out, "png")
    answer = spoiled.predict(out.getvalue())
    assert (answer["width"], answer["height"]) == (300, 20)
    for one in answer["objects"]:
        x1, y1, x2, y2 = one["box"]
        assert 0 <= x1 < x2 <= 300
        assert 0 <= y1 < y2 <= 20


def test_mask_average_precision_is_that_of_pycocotools(trained: Job, table: pd.DataFrame) -> None:
    labels = ("four", "one", "zero")
    ground: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    ground["categories"] = [{"id": number, "name": name} for number, name in enumerate(labels)]
    results: list[dict[str, Any]] = []
    truths = [parse_target(target) for target in targets(trained)]
    for image, (row, truth) in enumerate(zip(table.to_dict("records"), truths, strict=True)):
        ground["images"].append({"id": image, "width": truth.width, "height": truth.height})
        for label, mask in zip(truth.labels, truth.masks, strict=True):
            assert mask
            one = {"id": len(ground["annotations"]) + 1, "image_id": image, "category_id": labels.index(label)}
            ground["annotations"].append(
                one | {"iscrowd": 0, "segmentation": mask.coco, "area": mask.area, "bbox": [0, 0, 1, 1]}
            )
        size = [row["picture_height"], row["picture_width"]]
        for label, score, mask in zip(row["detected_label"], row["detected_score"], row["detected_mask"], strict=True):
            one = {"image_id": image, "category_id": labels.index(label), "score": score}
            results.append(one | {"segmentation": {"size": size, "counts": mask}})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = pycoco.COCO()
        coco.dataset = ground
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), "segm")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    ours = kind.summary(table, labels)
    assert [ours["map"], ours["map50"], ours["map75"]] == pytest.approx(judged.stats[:3].tolist(), abs=1e-9)


def targets(job: Job) -> list[bytes]:
    from models.common.data.batches import read_payloads

    return read_payloads(job.batches, job.manifest, "target")


def test_the_service_answers_what_the_evaluation_saw(trained: Job, table: pd.DataFrame) -> None:
    from models.common.data.batches import read_payloads

    predictor = Predictor(trained.out / "program")
    rows = table.head(6)
    answers = []
    for row, payload in zip(rows.to_dict("records"), read_payloads(trained.batches, rows), strict=True):
        answers.append(json.loads(json.dumps(predictor.predict(**kind.SERVICE.form(payload)))))
        told = kind.SERVICE.expected({str(key): value for key, value in row.items()}, predictor.labels)
        assert len(told["objects"]) == len(answers[-1]["objects"])
        assert kind.SERVICE.differs(told, answers[-1], 1e-4) == ""
    assert any(answer["objects"] for answer in answers)
    assert "is missing" in kind.SERVICE.differs(
        {"threshold": 0.05, "objects": answers[0]["objects"]}, {"objects": []}, 1e-3
    )
    for one in answers[0]["objects"]:
        height, width = one["mask"]["size"]
        mask = Rle(height, width, one["mask"]["counts"])
        lines = [list(zip(line[::2], line[1::2], strict=True)) for line in one["polygons"]]
        assert np.array_equal(filled(lines, (mask.height, mask.width)), mask.array())


def test_an_answer_with_another_mask_differs() -> None:
    one = {"label": "cat", "score": 0.9, "box": [5.0, 5.0, 15.0, 15.0], "mask": block(5, 5, 15, 15).coco}
    told = {"threshold": 0.5, "objects": [one]}
    assert kind.SERVICE.differs(told, {"objects": [one]}, 1e-4) == ""
    for change in ({"mask": block(5, 5, 15, 9).coco}, {"score": 0.8}, {"label": "dog"}):
        assert "was not expected" in kind.SERVICE.differs(
            {"threshold": 0.5, "objects": []}, {"objects": [one | change]}, 1e-4
        )
        assert "cat (0.9000) at (5.0, 5.0, 15.0, 15.0) is missing" in kind.SERVICE.differs(
            told, {"objects": [one | change]}, 1e-4
        )


def test_boxes_and_masks_are_in_px_of_the_photo() -> None:
    canvas = Canvas(64, 64, keep_aspect=True, max_pixels=10**6)
    outputs = {
        "boxes": np.array([[16, 8, 32, 24], [0, 40, 64, 60]], np.float32),
        "scores": np.array([0.5, 0.9], np.float32),
        "labels": np.array([1, 0]),
        "masks": np.ones((2, 28, 28), np.float32),
    }
    seen = read_detections(outputs, canvas, 128, 64)  # on the canvas 64 x 32: the second one is in the grey edge
    assert seen.boxes.tolist() == [[32, 16, 64, 48]]
    (answer,) = describe_detections(seen, ("cat", "dog"), 0.5)
    assert (answer["label"], answer["score"]) == ("dog", 0.5)
    assert answer["polygons"] == [[32, 16, 64, 16, 64, 48, 32, 48]]
    assert seen.rle(0) == block(32, 16, 64, 48, 128, 64)


def test_weights_of_a_class_that_was_known_go_on(trained: Job, tmp_path: Path) -> None:
    saved = torch.load(trained.out / "training/weights.pt", weights_only=True)
    saved["labels"] = ["seven", "one", "four"]  # as if the network had been trained on those
    torch.save(saved, tmp_path / "weights.pt")
    job = make_job(tmp_path, trained.batches, tmp_path / "weights.pt", weights="champion")
    learner = build(job, torch.device("cpu"))
    state, before = learner.network.state_dict(), saved["state"]
    key = "roi_heads.box_predictor.bbox_pred.weight"
    assert torch.equal(state[key][0:4], before[key][0:4])  # background
    assert torch.equal(state[key][4:8], before[key][12:16])  # four
    assert torch.equal(state[key][8:12], before[key][8:12])  # one
    assert not torch.equal(state[key][12:16], before[key][4:8])  # zero is new
    assert torch.equal(state["backbone.body.stem.0.weight"], before["backbone.body.stem.0.weight"])
    with pytest.raises(UserError, match="does not fit the network"):
        build(
            make_job(tmp_path, trained.batches, tmp_path / "weights.pt", weights="champion", width=16),
            torch.device("cpu"),
        )
    with pytest.raises(UserError, match="holds a maskrcnn-small, params say maskrcnn-resnet18"):
        build(
            make_job(tmp_path, trained.batches, tmp_path / "weights.pt", weights="champion", backbone="resnet18"),
            torch.device("cpu"),
        )


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large"])
def test_a_classifiers_weights_fill_the_whole_backbone(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = get_model(backbone, weights=None).state_dict()
    monkeypatch.setattr(weights, "imagenet_weights", lambda name: given if name == backbone else {})
    train = InstanceTrain(backbone=backbone, weights="imagenet")
    network = networks.build(train, DATA, 2)
    networks.load_initial(network, train, DATA, ("cat", "dog"), None)
    prefix = "features." if backbone.startswith("mobilenet") else ""
    for key, value in backbones.backbone_of(network).state_dict().items():
        assert torch.equal(value, given[prefix + key]), key
    parts = [*backbones.head(network), backbones.backbone_of(network)]
    assert sum(len(list(part.parameters())) for part in parts) == len(list(network.parameters()))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large"])
def test_every_backbone_learns_and_answers(backbone: Any) -> None:
    torch.manual_seed(0)
    network = networks.build(InstanceTrain(backbone=backbone, anchor=16), DATA, 2)
    detector = networks.detector(network)
    masks = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    masks[..., 10:30, 10:30] = 1
    pictures = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8)
    loss = detector.losses(detector.normalise(pictures.float()), mask_targets(masks, torch.tensor([[1]])))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    network.eval()
    with torch.inference_mode():
        (answer,) = detector(pictures)
    assert answer["masks"].shape[1:] == (28, 28)
    assert (answer["labels"] >= 0).all()


def test_the_report_shows_curves_and_masks(trained: Job, table: pd.DataFrame) -> None:
    job = ReportJob(table, table, ("four", "one", "zero"), trained.manifest, trained.batches)
    found = {section.title: section.html for section in kind.report(job)}
    assert list(found) == ["Precision and recall", "Objects by class", "Worst pictures"]
    assert found["Precision and recall"].count("<svg") == 3
    assert found["Worst pictures"].count("<image") == 16
    gone = ReportJob(table, None, ("four",), trained.manifest, trained.batches / "elsewhere")
    assert "dvc pull" in kind.report(gone)[2].html


def test_training_needs_objects_and_something_to_validate_with(trained: Job, tmp_path: Path) -> None:
    manifest = trained.manifest.assign(classes="{}")
    with pytest.raises(UserError, match="no training picture has any"):
        kind.train(TrainJob("m", DATA, trained.train, manifest, trained.batches, tmp_path, tmp_path, None, {}))
    manifest = trained.manifest.assign(split="train")
    with pytest.raises(UserError, match="No picture of the validation split has an object"):
        kind.train(TrainJob("m", DATA, trained.train, manifest, trained.batches, tmp_path, tmp_path, None, {}))


def test_the_bento_needs_only_what_its_predictor_imports() -> None:
    modules = service_modules("instance_segmentation")
    assert "models.common.params" not in modules
    assert not distributions(modules) & {"pycocotools", "pydantic", "pandas", "torch"}
