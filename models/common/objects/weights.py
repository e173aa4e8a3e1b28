"""Weights for a detector to start from: a classifier's in its backbone, or all of another detector's.

The layers that name classes are kept as far as their classes are the same.
"""

from pathlib import Path

from torch import Tensor, nn

from models.common.backbones.pretrained import imagenet_weights
from models.common.errors import UserError
from models.common.objects.backbones import backbone_of
from models.common.training.weights import read_weights

BOX_COORDINATES = 4  # numbers that Faster and Mask R-CNN give of each class in their layer for boxes
BACKGROUND = ""  # what the first row of a class layer may stand for


def load_backbone_weights(network: nn.Module, backbone: str) -> None:
    """ImageNet's weights of a classifier in the backbone. UserError where they cannot be had."""
    layers = backbone_of(network)
    state = {key.removeprefix("features."): value for key, value in imagenet_weights(backbone).items()}
    layers.load_state_dict({key: value for key, value in state.items() if key in layers.state_dict()}, strict=False)


def load_weights_file(
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
    saved_rows, rows = ([BACKGROUND] * background + list(names) for names in (saved["labels"], labels))
    load_detector_weights(network, class_layers, saved["state"], saved_rows, rows, str(path))


def load_detector_weights(
    network: nn.Module,
    class_layers: list[nn.Module],
    state: dict[str, Tensor],
    saved_rows: list[str],
    rows: list[str],
    source: str,
) -> None:
    """Every tensor of `state`; those of the class layers row by row, new classes keep their fresh ones.

    before, rows: what the rows of a class layer stand for, in `state` and in the network.
    Raises UserError where another tensor is missing or of another shape.
    """
    current = network.state_dict()
    class_keys = _state_keys(network, class_layers)
    misfits = [key for key in current if "num_batches" not in key and not _fits(key, current, state, class_keys)]
    if misfits:
        raise UserError(
            f"{source} does not fit the network: {len(misfits)} of {len(current)} tensors are missing or of"
            f" another shape, '{misfits[0]}' first. Set network, backbone, width and anchor as they were, or other"
            " train.weights"
        )
    unchanged = {key: state[key] for key in current if key in state and key not in class_keys}
    relabelled = {key: _remap_rows(key, current[key], state[key], saved_rows, rows) for key in class_keys}
    network.load_state_dict(current | unchanged | relabelled)


def _fits(key: str, current: dict[str, Tensor], state: dict[str, Tensor], class_keys: set[str]) -> bool:
    return key in state and (key in class_keys or state[key].shape == current[key].shape)


def _remap_rows(key: str, current: Tensor, saved: Tensor, saved_rows: list[str], rows: list[str]) -> Tensor:
    """`current` with the rows of classes known before; its first dimension is anchors x rows x numbers of each row."""
    row_size = BOX_COORDINATES if "bbox_pred" in key else 1
    shared = [row for row in rows if row in saved_rows]
    new = current.clone().view(-1, len(rows), row_size, *current.shape[1:])
    old = saved.reshape(-1, len(saved_rows), row_size, *current.shape[1:]).to(new.dtype)
    new[:, [rows.index(row) for row in shared]] = old[:, [saved_rows.index(row) for row in shared]]
    return new.view_as(current)


def _state_keys(network: nn.Module, layers: list[nn.Module]) -> set[str]:
    return {f"{name}.{key}" for name, part in network.named_modules() if part in layers for key in part.state_dict()}
