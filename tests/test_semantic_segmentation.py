"""Semantic segmentation from files to answers: layouts, bad masks, numberings, learning, metrics, report, service."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image, PngImagePlugin
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from models.common.data.batches import read_manifest
from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example, ReportJob, ScoreJob, TrainJob, load_kind
from models.common.program.program import Program
from models.common.segmentation import class_maps
from models.common.segmentation.class_maps import IGNORE_INDEX
from models.semantic_segmentation import networks
from models.semantic_segmentation.dataset import class_map
from models.semantic_segmentation.learner import SegmentationLearner, Segmenter, augmented, class_weights, dice
from models.semantic_segmentation.params import Augment, SegmentationData, SegmentationTrain
from models.semantic_segmentation.predictor import Predictor
from models.semantic_segmentation.training import parity
from tasks.add import add
from tasks.initial_weights import initial_weights
from tests.samples import semantic_segmentation as sample

Job = TrainJob[SegmentationData, SegmentationTrain]
Trained = tuple[Path, Job, pd.DataFrame]
kind = load_kind("semantic_segmentation")
NAMES = ("sky", "road", "void")


def png(values: Any, mode: str = "L", **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.asarray(values, np.uint8)) if not isinstance(values, Image.Image) else values
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(file, "PNG", **options)
    return file.getvalue()


def grid(width: int = 32, height: int = 24) -> np.ndarray:
    """Sky above road, and a void column."""
    values = np.repeat(np.arange(height) * 2 // height, width).reshape(height, width)
    values[:, 0] = 2
    return values


PHOTO = png(np.random.default_rng(0).integers(0, 256, (24, 32, 3)))
MASK = png(grid())


def example(mask: bytes, photo: bytes = PHOTO, names: tuple[str, ...] = NAMES) -> Example:
    return Example("images/1.png", photo, target=class_maps.embed_class_names(mask, names))


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, payload in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(payload)
    return folder


def read(folder: Path, data: SegmentationData | None = None) -> tuple[list[Example], Source]:
    source = Source(folder)
    return list(kind.examples(source, data or SegmentationData())), source


# Deliveries


@pytest.mark.parametrize("above", ["", "camvid/"])
@pytest.mark.parametrize(("images", "found"), [("images/{}", None), ("val/images/{}", "val"), ("images/dev/{}", "val")])
def test_pictures_and_masks_are_paired_in_every_layout(tmp_path: Path, above: str, images: str, found: str) -> None:
    photo = f"{above}{images}".format("a.b.jpg")
    mask = f"{above}{images}".replace("images", "masks").format("a.b.png")
    read_ones, source = read(lay(tmp_path, {f"{above}classes.txt": b"sky\nroad\nvoid\n", photo: PHOTO, mask: MASK}))
    (one,) = read_ones
    assert (one.file_name, one.split, one.label, one.payload) == (photo, found, None, PHOTO)
    assert class_maps.read_class_names(one.target or b"") == NAMES
    assert (source.total, source.rejected) == (1, [])


def test_what_has_no_partner_is_told_and_nothing_else_is_lost(tmp_path: Path) -> None:
    files = {f"{folder}/{name}.png": data for folder, data in (("images", PHOTO), ("masks", MASK)) for name in "ab"}
    lay(tmp_path, files | {"classes.txt": b"sky\nroad\nvoid", "images/lone.jpg": PHOTO, "masks/widow.png": MASK})
    found, source = read(tmp_path)
    assert [one.file_name for one in found] == ["images/a.png", "images/b.png"]
    assert dict(source.rejected) == {
        "images/lone.jpg": "no mask: there is no masks/lone.png",
        "masks/widow.png": "a mask without its picture: there is no images/widow.*",
    }


def test_a_metadata_file_brings_splits_groups_and_slices(tmp_path: Path) -> None:
    table = b"file_name,split,group,weather\nimages/1.png,valid,street 3,rain\n"
    lay(
        tmp_path, {"images/1.png": PHOTO, "masks/1.png": MASK, "classes.txt": b"sky\nroad\nvoid", "metadata.csv": table}
    )
    (one,), source = read(tmp_path)
    assert (one.split, one.group, one.extra) == ("valid", "street 3", {"weather": "rain"})
    assert source.columns == ("weather",)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"images/1.png": PHOTO, "masks/1.png": MASK}, "has no classes.txt: one class name a line"),
        ({"classes.txt": b"a\nb", "photos/1.png": PHOTO}, "has no folder images/ with pictures in it"),
        ({"classes.txt": b"a\n\nb", "images/1.png": PHOTO}, "one class name a line, each once, no empty lines"),
        ({"classes.txt": b"a\na", "images/1.png": PHOTO}, "one class name a line, each once"),
    ],
)
def test_a_delivery_that_cannot_be_understood_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read(lay(tmp_path, files))
    assert "\n" not in str(refused.value)


# Masks


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (b"", "mask is an empty file"),
        (b"GIF89a not a mask", "mask is not a PNG; give class numbers as 8-bit grey or palette PNG"),
        (png(np.zeros((24, 32, 3))), r"mask is colour \(RGB\); give class numbers"),
        (png(np.zeros((24, 32, 4))), r"RGBA"),
        (png(Image.fromarray(np.zeros((24, 32), np.uint16))), "mask has 16 bits a pixel"),
        (MASK[:-30], "mask cannot be decoded"),
        (png(grid(16, 24)), "mask of 16 x 24 px for a picture of 32 x 24 px"),
        (png(np.where(grid() == 1, 77, 0)), "mask holds 77; classes.txt allows 0 to 2, 255"),
        (png(np.arange(32 * 24).reshape(24, 32) % 16), "mask holds 3, 4, 5, 6, 7, 8 and 7 more; classes.txt allows"),
        (png(np.full((24, 32), 2)), "mask is void all over"),
    ],
)
def test_a_mask_that_cannot_be_learnt_is_told_in_one_line(mask: bytes, said: str) -> None:
    with pytest.raises(BadExampleError, match=said) as refused:
        kind.inspect(example(mask), SegmentationData())
    assert "\n" not in str(refused.value)


def test_a_mask_without_names_is_refused() -> None:
    with pytest.raises(BadExampleError, match="no class names"):
        kind.inspect(Example("1.png", PHOTO, target=MASK), SegmentationData())


def test_classes_and_their_shares_are_recorded_without_void() -> None:
    found = kind.inspect(example(MASK), SegmentationData())
    assert json.loads(found["classes"]) == {"sky": 1, "road": 1}
    assert json.loads(found["shares"]) == pytest.approx({"sky": 12 * 31 / 768, "road": 12 * 31 / 768}, abs=1e-5)
    assert found["void_share"] == pytest.approx(1 / 32)
    assert (found["width"], found["height"]) == (32, 24)
    assert set(found) == set(kind.COLUMNS)


@pytest.mark.parametrize(
    ("void", "classes"),
    [("Sky", {"road", "void"}), (0, {"road", "void"}), (["sky", 1], {"void"}), ([], {"sky", "road", "void"})],
)
def test_void_can_be_named_or_numbered(void: Any, classes: set[str]) -> None:
    assert set(json.loads(kind.inspect(example(MASK), SegmentationData(void=void))["classes"])) == classes


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_hold_the_same_numbers(bits: int) -> None:
    values = grid() % 2
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(bytes(6))
    assert (class_maps.decode_mask(png(image, bits=bits), 10**6) == values).all()  # a palette
    rows = np.packbits(((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(len(values), -1).astype(np.uint8), 1)
    grey = small_grey_png(rows, values.shape, bits)
    assert (class_maps.decode_mask(grey, 10**6) == values).all()


def small_grey_png(rows: np.ndarray, shape: tuple[int, ...], bits: int) -> bytes:
    """A grey PNG of under 8 bits, which PIL cannot write."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [class_maps._chunk(name, data) for name, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))]
    return class_maps.SIGNATURE + b"".join(chunks)


def test_names_go_into_a_mask_once_and_its_pixels_stay() -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("author", "someone")
    plain = png(Image.fromarray(grid().astype(np.uint8)), pnginfo=note)
    first = class_maps.embed_class_names(plain, ("übergang", "b"))
    assert class_maps.read_class_names(first) == ("übergang", "b")
    assert class_maps.embed_class_names(first, NAMES) == class_maps.embed_class_names(plain, NAMES)
    with Image.open(io.BytesIO(first)) as image:
        assert image.info["author"] == "someone"
        assert (np.asarray(image) == grid()).all()


def test_deliveries_with_other_numberings_mean_the_same() -> None:
    other = ("void", "road", "sky")
    renumbered = png(np.array([2, 1, 0])[grid()])
    one = class_map(class_maps.embed_class_names(MASK, NAMES), ("road", "sky"), SegmentationData())
    two = class_map(class_maps.embed_class_names(renumbered, other), ("road", "sky"), SegmentationData())
    assert (one == two).all()
    assert set(np.unique(one)) == {0, 1, IGNORE_INDEX}


# Augmentation and loss


def test_picture_and_mask_move_together() -> None:
    torch.manual_seed(0)
    values = torch.randint(0, 5, (6, 40, 60)).repeat_interleave(1, 0)
    values = values[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :40, :60].to(torch.uint8)
    pictures = (values * 50)[..., None].expand(-1, -1, -1, 3).contiguous()
    augment = Augment(crop=(32, 24), scale=0.5, brightness=0, contrast=0)
    moved, classes = augmented(pictures, values, augment)
    assert moved.shape == (6, 24, 32, 3)
    inside = classes != IGNORE_INDEX
    inner = (moved[..., 0] - 50.0 * classes).abs()[inside] < 1  # but where bilinear mixes two classes at their edge
    assert inner.float().mean() > 0.7
    assert not torch.equal(classes[0], classes[1])
    untouched, same = augmented(pictures, values, Augment(scale=0, horizontal_flip=False, brightness=0, contrast=0))
    assert torch.equal(same, values.long())
    assert torch.allclose(untouched, pictures.float(), atol=1e-2)


def test_what_lies_beyond_the_edge_is_void() -> None:
    torch.manual_seed(1)
    pictures, values = torch.zeros(20, 32, 32, 3, dtype=torch.uint8), torch.zeros(20, 32, 32, dtype=torch.uint8)
    _, classes = augmented(pictures, values, Augment(scale=0.5))
    assert set(classes.flatten().tolist()) == {0, IGNORE_INDEX}


def test_void_pixels_teach_nothing() -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    classes = torch.randint(0, 3, (2, 8, 8))
    classes[:, :4] = IGNORE_INDEX
    for loss in (learner_loss(logits, classes), dice(logits, classes)):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert float(gradient[:, :, :4].abs().max()) == 0
        assert float(gradient[:, :, 4:].abs().max()) > 0
    all_void = torch.full((2, 8, 8), IGNORE_INDEX)
    assert learner_loss(logits, all_void).item() == 0
    assert torch.isfinite(dice(logits, all_void))


def learner_loss(logits: torch.Tensor, classes: torch.Tensor, **train: Any) -> torch.Tensor:
    learner = SegmentationLearner.__new__(SegmentationLearner)
    learner._train, learner._classes = SegmentationTrain(**train), 3
    learner._weights = torch.ones(3)
    return learner._loss(logits, classes)


def test_the_loss_is_the_mean_over_labelled_pixels() -> None:
    logits, classes = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    classes[0, 0] = IGNORE_INDEX
    theirs = torch.nn.functional.cross_entropy(logits, classes, ignore_index=IGNORE_INDEX)
    assert learner_loss(logits, classes) == pytest.approx(float(theirs), rel=1e-5)
    sure = torch.nn.functional.one_hot(classes.clamp(max=2), 3).permute(0, 3, 1, 2) * 50.0
    assert dice(sure, classes) == pytest.approx(0, abs=1e-5)
    assert dice(-sure, classes) > 0.6


def test_rare_classes_weigh_more() -> None:
    weights = class_weights("inverse_log", np.array([0.9, 0.1, 0.001]))
    assert (np.diff(weights) > 0).all()
    assert weights == pytest.approx(1 / np.log([1.92, 1.12, 1.021]))


# Networks


@pytest.mark.parametrize(
    "name",
    ["small_fpn", "lraspp_mobilenet_v3_small", "lraspp_resnet18", "fcn_resnet18", "deeplabv3_mobilenet_v3_large"],
)
def test_every_network_gives_logits_of_every_pixel_and_the_program_says_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = networks.build(name, 3, 8, dropout=0.1)
    assert len(networks.head(name, network, 8)) == (1 if name == "small_fpn" else 2)
    network.train()
    outputs = network(torch.randn(2, 3, 48, 72))
    main, *further = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    assert {tuple(each.shape) for each in (main, *further)} == {(2, 3, 48, 72)}
    assert bool(further) == name.startswith(("fcn", "deeplab"))
    program = export(network, tmp_path, (48, 72))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 48, 72, 3), np.uint8)
    assert parity(Segmenter(network).eval(), program, pictures) < 0.01


def export(network: torch.nn.Module, folder: Path, size: tuple[int, int]) -> Program:
    from models.common.program.export import export_graph
    from models.common.program.program import ProgramSpec

    whole, names = Segmenter(network).eval(), ("images", "classes", "confidence")
    spec = ProgramSpec("semantic_segmentation", ("a", "b", "c"), {}, {})
    blank = torch.zeros(2, *size, 3, dtype=torch.uint8)
    export_graph(whole, {"images": blank}, names[1:], {name: {0: "batch"} for name in names}, spec, folder)
    return Program(folder)


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "fcn_resnet101", "lraspp_resnet50", "fcn_mobilenet_v3_small"])
def test_larger_networks_have_the_right_shapes(name: str) -> None:
    with torch.device("meta"):
        network = networks.build(name, 5, 8).eval()
        assert network(torch.empty(1, 3, 64, 64)).shape == (1, 5, 64, 64)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"network": "unet"}, "unknown network 'unet'. Known: small_fpn, and lraspp, deeplabv3, fcn each followed by"),
        ({"network": "fcn_vgg16"}, "unknown network 'fcn_vgg16'"),
        ({"mixup": 0.2}, "Extra inputs are not permitted"),
        ({"weights": "imagenet"}, "small_fpn has no imagenet weights"),
    ],
)
def test_params_that_contradict_are_refused(train: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SegmentationTrain(**train)


def test_weights_that_no_network_of_this_kind_has_are_refused_and_not_left_out(tmp_path: Path) -> None:
    section = {**sample.TINY, "train": {**sample.TINY["train"], "weights": "pretrained"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"models": {"scenes": section}}))
    with pytest.raises(
        UserError, match=r"weights is 'pretrained', and there is no file .* Allowed: auto, none, imagenet, "
    ):
        initial_weights(tmp_path, "scenes")


def test_imagenet_weights_fill_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import get_model, get_model_weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = networks.build("lraspp_mobilenet_v3_small", 3, 8)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"could not be downloaded .*; put mobilenet_v3_small-.* at "):
        networks.load_imagenet("lraspp_mobilenet_v3_small", network)
    source = get_model("mobilenet_v3_small", weights=None)
    state = source.state_dict()
    weights = get_model_weights("mobilenet_v3_small").DEFAULT
    cached = tmp_path / "hub/checkpoints" / weights.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, cached)
    networks.load_imagenet("lraspp_mobilenet_v3_small", network)
    stem = network.get_submodule("network.backbone").state_dict()["0.0.weight"]
    assert torch.equal(stem, state["features.0.0.weight"])


# Metrics


def scored(truths: np.ndarray, answers: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """A score table by scoring's own code, from class maps (N, H, W)."""
    from models.semantic_segmentation.scoring import confusion_matrix, score_table

    count = len(truths)
    matrices = np.stack([confusion_matrix(*pair, len(classes)) for pair in zip(truths, answers, strict=True)])
    manifest = pd.DataFrame({"id": [str(n) for n in range(count)], "split": "test", "row": range(count)})
    return score_table(manifest, classes, matrices, [{} for _ in range(count)])


@pytest.fixture(scope="module")
def guessed() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Truths with void and answers that are mostly right, of five classes; the last is answered but nowhere true."""
    rng = np.random.default_rng(3)
    truths = rng.integers(0, 4, (12, 20, 30)).astype(np.uint8)
    answers = np.where(rng.random(truths.shape) < 0.6, truths, rng.integers(0, 5, truths.shape)).astype(np.uint8)
    truths[rng.random(truths.shape) < 0.1] = IGNORE_INDEX
    return truths, answers, ("a", "b", "c", "d", "e")


def test_mean_iou_and_accuracies_are_torchmetrics_own(guessed: tuple[np.ndarray, np.ndarray, tuple[str, ...]]) -> None:
    truths, answers, classes = guessed
    table = scored(*guessed)
    found = kind.summary(table, classes)
    given = torch.tensor(answers).long(), torch.tensor(truths).long()
    settings: dict[str, Any] = {"num_classes": 5, "ignore_index": IGNORE_INDEX}
    assert found["mean_iou"] == pytest.approx(float(MulticlassJaccardIndex(average="macro", **settings)(*given)))
    each = MulticlassJaccardIndex(average="none", **settings)(*given).tolist()
    assert [found[f"iou_{name}"] for name in classes] == pytest.approx(each)
    assert found["pixel_accuracy"] == pytest.approx(float(MulticlassAccuracy(average="micro", **settings)(*given)))
    recalls = MulticlassAccuracy(average="none", **settings)(*given)[:4]  # torchmetrics counts a class that is nowhere
    assert found["mean_class_accuracy"] == pytest.approx(float(recalls.mean()))


def test_resampled_mean_iou_is_that_of_the_pictures_drawn(
    guessed: tuple[np.ndarray, np.ndarray, tuple[str, ...]],
) -> None:
    table = scored(*guessed)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 12, (5, 12))
    weights = np.stack([np.bincount(row, minlength=12) for row in drawn]).astype(float)
    for classes in (None, ("b",), ("b", "d")):
        expected = [estimated(table.iloc[row], classes, np.ones((1, 12)))[0] for row in drawn]
        assert estimated(table, classes, weights) == pytest.approx(expected)
    assert np.isnan(estimated(table, ("nowhere",), weights)).all()


def estimated(table: pd.DataFrame, classes: tuple[str, ...] | None, weights: np.ndarray) -> np.ndarray:
    """Mean IoU as the gate asks for it."""
    whole = kind.METRICS[0]
    assert whole.of_classes
    metric = whole if classes is None else whole.of_classes(classes)
    assert metric.estimate
    return metric.estimate(table)(weights)


def test_confusions_and_a_trivial_answer_are_counted(guessed: tuple[np.ndarray, np.ndarray, tuple[str, ...]]) -> None:
    truths, answers, _ = guessed
    table = scored(*guessed)
    wrong = int(((truths != answers) & (truths != IGNORE_INDEX)).sum())
    assert sum(sum(counts) for counts in table["confused_pixels"]) == wrong
    a_as_b = int(((truths[0] == 0) & (answers[0] == 1)).sum())
    assert dict(zip(table["confused"][0], table["confused_pixels"][0], strict=True))["a as b"] == a_as_b
    most = np.bincount(truths[truths != IGNORE_INDEX]).argmax()
    assert table["trivial_right_pixels"].tolist() == [(each == most).sum() for each in truths]


# Training, evaluation, report, service


@pytest.fixture(scope="module")
def trained(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A small model that was trained on two deliveries with other numberings, and its score table."""
    folder = tmp_path_factory.mktemp("scenes")
    root = Path(shutil.copytree(_template, folder / "project", symlinks=True))
    section = {
        **sample.TINY,
        "train": {**sample.TINY["train"], "epochs": 25, "dice": 0.5},
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"models": {"scenes": section}}))
    add(root, "scenes", sample.write_scenes(folder / "one", 0, 60))
    add(root, "scenes", sample.write_scenes(folder / "two", 60, 120, classes=tuple(reversed(sample.CLASSES))))
    batches = root / "data" / "scenes"
    data, train = SegmentationData(**section["data"]), SegmentationTrain(**section["train"])
    home, out = root / ".ratchet", root / "artifacts" / "scenes"
    job = TrainJob("scenes", data, train, read_manifest(batches), batches, out, home, None, {"model": "scenes"})
    kind.train(job)
    test = job.manifest[job.manifest["split"] == "test"].reset_index(drop=True)
    return root, job, kind.score(ScoreJob(out / "program", test, batches, home))


def test_a_model_learns_from_deliveries_with_other_numberings(
    trained: Trained,
) -> None:
    _, job, table = trained
    history = pd.read_csv(job.out / "training/history.csv")
    assert {"val_loss", "val_mean_iou", "val_pixel_accuracy"} < set(history)
    assert history["val_loss"].min() < 0.6 * history["val_loss"].iloc[0]
    summary = json.loads((job.out / "training/summary.json").read_text())
    assert summary["parity_differing_pixels"] < 0.001
    found = kind.summary(table, ("digit", "disc", "ground", "square"))
    trivial = table["trivial_right_pixels"].sum() / table["labelled_pixels"].sum()
    assert found["pixel_accuracy"] > trivial
    assert found["mean_iou"] > 0.3  # ground alone is 0.2


def test_evaluation_is_at_the_masks_own_size(trained: Trained) -> None:
    _, job, table = trained
    assert (table["width"] * table["height"]).tolist() == [sample.WIDTH * sample.HEIGHT] * len(table)
    void = job.manifest.set_index("id").loc[table["id"], "void_share"].to_numpy()
    assert table["labelled_pixels"].to_numpy() == pytest.approx((1 - void) * sample.WIDTH * sample.HEIGHT)
    assert "void" not in {name for names in table["classes"] for name in names}


def test_a_class_that_the_program_does_not_know_is_always_wrong(trained: Trained, tmp_path: Path) -> None:
    _, job, table = trained
    program = tmp_path / "program"
    shutil.copytree(job.out / "program", program)
    spec = json.loads((program / "program.json").read_text())
    spec["labels"][spec["labels"].index("disc")] = "triangle"
    (program / "program.json").write_text(json.dumps(spec))
    test = job.manifest[job.manifest["split"] == "test"]
    found = kind.summary(kind.score(ScoreJob(program, test, job.batches, job.home)), tuple(spec["labels"]))
    assert found["iou_disc"] == 0
    assert found["mean_iou"] < kind.summary(table, tuple(spec["labels"]))["mean_iou"]


def test_the_service_answers_as_the_evaluation_and_a_shifted_mask_is_noticed(trained: Trained, tmp_path: Path) -> None:
    _, job, table = trained
    predictor = Predictor(job.out / "program")
    labels = predictor.labels
    numbers = [int(name.split("/")[-1].split(".")[0]) for name in files(job, table)]
    for index in (0, 1):
        row = {str(name): value for name, value in table.iloc[index].items()}
        asked = sample.write_scenes(tmp_path, numbers[index], numbers[index] + 1) / f"images/{numbers[index]:04d}.png"
        answer = predictor.predict(asked.read_bytes())
        expected = kind.SERVICE.expected(row, labels)
        assert kind.SERVICE.differs(expected, answer, 1e-4) == ""
        assert sum(answer["shares"].values()) == pytest.approx(1, abs=1e-5)
        assert (answer["width"], answer["height"]) == (sample.WIDTH, sample.HEIGHT)
        moved = np.roll(class_maps.decode_base64(answer["mask"]), 2, axis=1)
        shifted = answer | {"mask": predictor_mask(moved, len(labels))}
        assert "of its pixels are of another class" in kind.SERVICE.differs(expected, shifted, 1e-3)
        one_off = class_maps.decode_base64(answer["mask"]).copy()
        one_off[0, 0] = (one_off[0, 0] + 1) % 4
        assert kind.SERVICE.differs(expected, answer | {"mask": predictor_mask(one_off, len(labels))}, 1e-3) == ""
        assert kind.SERVICE.differs(expected, answer | {"mask": "no PNG"}, 1e-3) == "mask: no PNG as base64"
        assert kind.SERVICE.differs(expected, answer | {"confidence": answer["confidence"] / 2}, 1e-3).startswith(
            "confidence"
        )


def files(job: Job, table: pd.DataFrame) -> list[str]:
    return [str(name) for name in job.manifest.set_index("id").loc[table["id"], "file_name"]]


def predictor_mask(values: np.ndarray, classes: int) -> str:
    import base64

    return base64.b64encode(class_maps.encode_png(values, classes)).decode()


def test_a_photo_of_any_size_is_answered_at_its_own_size_upright(
    trained: Trained,
) -> None:
    predictor = Predictor(trained[1].out / "program")
    picture = Image.effect_noise((300, 41), 90).convert("RGB")
    exif = picture.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif)
    answer = predictor.predict(file.getvalue())
    assert class_maps.decode_base64(answer["mask"]).shape == (300, 41) == (answer["height"], answer["width"])
    with pytest.raises(BadExampleError, match="not an image"):
        predictor.predict(b"no picture")


def test_the_report_draws_the_worst_and_compares_classes(trained: Trained) -> None:
    _, job, table = trained
    labels = ("digit", "disc", "ground", "square")
    report = ReportJob(table, table, labels, job.manifest, job.batches)
    sections = {section.title: section.html for section in kind.report(report)}
    assert list(sections) == ["Classes", "Confused pixels", "Worst pictures"]
    assert sections["Classes"].count("+0.000") == 4
    assert sections["Worst pictures"].count("data:image/jpeg;base64,") == 4 * 8
    assert 'src="http' not in "".join(sections.values())
    gone = replace(report, batches=job.batches.parent / "elsewhere")
    assert "dvc pull" in {section.title: section.html for section in kind.report(gone)}["Worst pictures"]


def test_training_refuses_what_it_cannot_learn(trained: Trained) -> None:
    _, job, _ = trained
    cases: list[tuple[Job, str]] = [
        (replace(job, manifest=job.manifest[job.manifest["split"] != "val"]), "The validation split is empty"),
        (
            replace(job, data=job.data.model_copy(update={"min_per_class": 1000})),
            "Too few training masks: 'digit' is in",
        ),
        (
            replace(job, data=job.data.model_copy(update={"labels": ("disc", "ground")})),
            "Class 'digit' is in the masks but",
        ),
        (replace(job, data=job.data.model_copy(update={"void": ("void", "digit", "disc", "square")})), "only 'ground'"),
    ]
    for case, said in cases:
        with pytest.raises(UserError, match=said):
            kind.train(case)


def test_validation_tells_void_and_drift() -> None:
    shares = [json.dumps({"sky": 0.5, "road": 0.5})] * 20 + [json.dumps({"sky": 0.95, "road": 0.05})] * 20
    manifest = pd.DataFrame({"batch": ["a"] * 20 + ["b"] * 20, "shares": shares, "width": 32, "height": 24})
    manifest = manifest.assign(phash=np.arange(40, dtype=np.uint64), split="train", void_share=0.0)
    checks = {check.name: check for check in kind.expectations(SegmentationData(), manifest)}
    assert {"masks are not mostly void", "class shares as before", "no near-duplicates across splits"} < set(checks)
    assert (manifest["class_drift"] > 0.2).all()
    assert all(check.severity == "warn" for name, check in checks.items() if "shares" in name or "void" in name)
