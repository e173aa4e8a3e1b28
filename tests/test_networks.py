"""Networks by name: every torchvision family builds, takes pictures, and has a head and groups that can be told."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.common.backbones.classifiers import Backbone
from models.common.backbones.pretrained import load_initial, pretrained
from models.common.errors import UserError
from models.common.training.freezing import layer_groups
from models.common.training.heads import on_meta_device

FAMILIES = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64,
    "googlenet": 64, "inception_v3": 96, "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_small": 64, "regnet_y_400mf": 64, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "swin_t": 64, "swin_v2_t": 64, "vgg11": 64, "vit_b_16": 64,
    "wide_resnet50_2": 64,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_every_family_builds_with_a_head_of_its_own_and_groups_that_hold_each_parameter_once(
    name: str, size: int
) -> None:
    network = on_meta_device(lambda: Backbone(name, size, 8).untrained(5))
    head = Backbone(name, size, 8).head(network)
    groups = layer_groups(network, head)
    logits = network(torch.empty(2, 3, size, size, device="meta"))
    assert logits.shape == (2, 5)
    assert len(groups) >= 4
    assert len(head) == 1
    held = [parameter for group in groups for parameter in group.parameters]
    assert len(held) == len(set(held))
    assert set(held) == set(network.parameters())
    assert 5 in groups[-1].parameters[0].shape


def test_auxiliary_logits_of_inception_are_heads_too() -> None:
    network = on_meta_device(lambda: Backbone("inception_v3", 299, 8).untrained(5))
    head = Backbone("inception_v3", 299, 8).head(network)
    names = {name for name, module in network.named_modules() if module in head}
    assert names == {"AuxLogits.fc", "fc"}
    outputs = network(torch.empty(2, 3, 299, 299, device="meta"))
    assert [tuple(each.shape) for each in outputs] == [(2, 5), (2, 5)]


def test_groups_run_from_stem_to_head() -> None:
    network = Backbone("resnet18", 32, 8).build(5)
    groups = layer_groups(network, Backbone("resnet18", 32, 8).head(network))
    assert [module for group in groups for module in group.modules] == [
        network.conv1, network.bn1, network.layer1, network.layer2, network.layer3, network.layer4, network.fc
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["small_cnn", "resnet9"])
@pytest.mark.parametrize("size", [8, 9, 16, 28, 32, 64, 100])
def test_our_own_networks_take_pictures_from_eight_pixels_up(name: str, size: int) -> None:
    network = Backbone(name, size, 8).build(3)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_an_unknown_network_is_refused_with_the_names_nearest_to_it() -> None:
    with pytest.raises(UserError, match=r"Unknown network 'resnet17'. Did you mean: .*resnet18"):
        Backbone("resnet17", 32, 8).build(2)


def test_a_size_that_a_network_cannot_take_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match=r"network vit_b_16 cannot take pictures of 50 px; change data.image_size"):
        Backbone("vit_b_16", 50, 8).build(2)


def test_dropout_before_the_head_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    network: Any = Backbone("small_cnn", 8, 8).build(2, dropout=0.9)
    pictures = torch.rand(4, 3, 8, 8)
    network.eval()
    assert torch.equal(network(pictures), network(pictures))
    network.train()
    seen: list[torch.Tensor] = []
    network.classifier.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(pictures)
    assert (seen[0] == 0).float().mean() > 0.5


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there: as good as no network
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    return tmp_path / "hub" / "checkpoints"


def test_imagenet_weights_without_a_network_say_which_file_goes_where(hub: Path) -> None:
    with pytest.raises(UserError, match=rf"put squeezenet1_1-\w+\.pth \(from https://.*\) at {hub}"):
        pretrained("squeezenet1_1")


def test_imagenet_weights_put_there_by_hand_fill_all_but_the_head(hub: Path) -> None:
    source: Any = Backbone("squeezenet1_1", 32, 8).untrained(1000)
    torch.save(source.state_dict(), hub / "squeezenet1_1-b8a52dc0.pth")
    network: Any = Backbone("squeezenet1_1", 32, 8).build(3)
    head = Backbone("squeezenet1_1", 32, 8).head(network)
    load_initial(network, head, Backbone("squeezenet1_1", 32), "imagenet", ("a", "b", "c"), None)
    assert torch.equal(network.features[0].weight, source.features[0].weight)
    assert network.classifier[1].weight.shape[0] == 3


def test_a_damaged_imagenet_file_is_one_line(hub: Path) -> None:
    (hub / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"half a download")
    with pytest.raises(UserError, match=r"squeezenet1_1-b8a52dc0.pth cannot be read .*; delete .* and run again"):
        pretrained("squeezenet1_1")


def test_a_champions_head_keeps_the_rows_of_classes_that_are_still_there(tmp_path: Path) -> None:
    both: list[Any] = [Backbone("small_cnn", 8, 8).build(3) for _ in range(2)]
    old, new = both
    torch.save({"network": "small_cnn", "labels": ["a", "b", "c"], "state": old.state_dict()}, tmp_path / "weights.pt")
    fresh = new.classifier.weight.detach().clone()
    backbone, path = Backbone("small_cnn", 8, 8), tmp_path / "weights.pt"
    load_initial(new, [new.classifier], backbone, "champion", ("b", "c", "d"), path)
    assert torch.equal(new.classifier.weight[:2], old.classifier.weight[1:])
    assert torch.equal(new.classifier.weight[2], fresh[2])


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    other = Backbone("small_cnn", 8, 16).build(2)
    path = tmp_path / "weights.pt"
    torch.save({"network": "small_cnn", "labels": ["a", "b"], "state": other.state_dict()}, path)
    network: Any = Backbone("small_cnn", 8, 8).build(2)
    with pytest.raises(UserError, match="does not fit the network"):
        load_initial(network, [network.classifier], Backbone("small_cnn", 8), "champion", ("a", "b"), path)
    with pytest.raises(UserError, match="holds a small_cnn, params say network: resnet18"):
        load_initial(network, [network.classifier], Backbone("resnet18", 8), "champion", ("a", "b"), path)
