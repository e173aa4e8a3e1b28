"""Weights for a detector to start from: a classifier's in its trunk, or all of another detector's.

The layers that name classes are kept as far as their classes are the same.
"""

from pathlib import Path

from torch import Tensor, nn

from models.common.errors import UserError
from models.common.image.imagenet import imagenet_weights
from models.common.objects.backbones import trunk_of
from models.common.training.weights import read_weights

BOX = 4  # numbers that Faster and Mask R-CNN give of each class in their layer for boxes
BACKGROUND = ""  # what the first row of a class layer may stand for


def fill_trunk(network: nn.Module, backbone: str) -> None:
    """ImageNet's weights of a classifier in the trunk. UserError where they cannot be had."""
    trunk = trunk_of(network)
    state = {key.removeprefix("features."): value for key, value in imagenet_weights(backbone).items()}
    trunk.load_state_dict({key: value for key, value in state.items() if key in trunk.state_dict()}, strict=False)


def fill_from_file(
    network: nn.Module,
    class_layers: list[nn.Module],
    design: str,
    labels: tuple[str, ...],
    path: Path,
    *,
    background: bool,
) -> None:
    """All of another training's weights.pt, of the same design. `background`: whether row 0 of a class layer is that.

    Raises UserError where the file cannot be read or is another network's.
    """
    saved = read_weights(path)
    if not {"network", "labels", "state"} <= set(saved):
        raise UserError(f"{path} holds no network, labels and state; give a weights.pt of a training")
    if saved["network"] != design:
        raise UserError(
            f"{path} holds a {saved['network']}, params say {design}."
            " Set train.network and train.backbone as they were, or other train.weights"
        )
    before, rows = ([BACKGROUND] * background + list(names) for names in (saved["labels"], labels))
    fill_detector(network, class_layers, saved["state"], before, rows, str(path))


def fill_detector(
    network: nn.Module,
    class_layers: list[nn.Module],
    state: dict[str, Tensor],
    before: list[str],
    rows: list[str],
    source: str,
) -> None:
    """Every tensor of `state`; those of the class layers row by row, new classes keep their fresh ones.

    before, rows: what the rows of a class layer stand for, in `state` and in the network.
    Raises UserError where another tensor is missing or of another shape.
    """
    own = network.state_dict()
    of_classes = _keys(network, class_layers)
    wrong = [key for key in own if "num_batches" not in key and not _fits(key, own, state, of_classes)]
    if wrong:
        raise UserError(
            f"{source} does not fit the network: {len(wrong)} of {len(own)} tensors are missing or of another shape,"
            f" '{wrong[0]}' first. Set network, backbone, width and anchor as they were, or other train.weights"
        )
    kept = {key: state[key] for key in own if key in state and key not in of_classes}
    relabelled = {key: _relabelled(key, own[key], state[key], before, rows) for key in of_classes}
    network.load_state_dict(own | kept | relabelled)


def _fits(key: str, own: dict[str, Tensor], state: dict[str, Tensor], of_classes: set[str]) -> bool:
    return key in state and (key in of_classes or state[key].shape == own[key].shape)


def _relabelled(key: str, own: Tensor, given: Tensor, before: list[str], rows: list[str]) -> Tensor:
    """`own` with the rows of classes known before; its first dimension is places x rows x numbers of each row."""
    each = BOX if "bbox_pred" in key else 1
    shared = [row for row in rows if row in before]
    new = own.clone().view(-1, len(rows), each, *own.shape[1:])
    old = given.reshape(-1, len(before), each, *own.shape[1:]).to(new.dtype)
    new[:, [rows.index(row) for row in shared]] = old[:, [before.index(row) for row in shared]]
    return new.view_as(own)


def _keys(network: nn.Module, layers: list[nn.Module]) -> set[str]:
    return {f"{name}.{key}" for name, part in network.named_modules() if part in layers for key in part.state_dict()}
