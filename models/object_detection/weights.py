"""Weights to start from: torchvision's of ImageNet or COCO, the champion's, a file's. The layers that name classes
are kept as far as their classes are the same."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.common.errors import UserError
from models.common.image.imagenet import imagenet_weights
from models.object_detection import networks
from models.object_detection.params import DetectionTrain

BOX = 4  # numbers that Faster R-CNN gives of each class in its layer for boxes


def load_initial(
    network: nn.Module,
    class_layers: list[nn.Module],
    train: DetectionTrain,
    labels: tuple[str, ...],
    initial: Path | None,
) -> None:
    """Fills `network` as `train.weights` says, from the file `initial` where that is the champion's or a path.

    Raises UserError where the weights cannot be had or are another network's.
    """
    if train.weights == "imagenet":
        _fill_trunk(network, train)
    elif train.weights == "coco":
        state, categories = _coco(train)
        _fill(network, class_layers, state, categories, _rows(train, labels), "COCO's weights")
    elif initial:
        saved = _read(initial)
        if saved["network"] != train.design:
            raise UserError(
                f"{initial} holds a {saved['network']}, params say {train.design}."
                " Set train.network and train.backbone as they were, or other train.weights"
            )
        before = _rows(train, tuple(saved["labels"]))
        _fill(network, class_layers, saved["state"], before, _rows(train, labels), str(initial))


def _rows(train: DetectionTrain, labels: tuple[str, ...]) -> list[str]:
    """What the rows of a class layer stand for; "" is the background."""
    return [""] * networks.first_label(train) + list(labels)


def _read(path: Path) -> dict[str, Any]:
    try:
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path} cannot be read as weights ({reason}); give a weights.pt of a training") from None
    if not isinstance(saved, dict) or not {"network", "labels", "state"} <= set(saved):
        raise UserError(f"{path} holds no network, labels and state; give a weights.pt of a training")
    return dict(saved)


def _fill_trunk(network: nn.Module, train: DetectionTrain) -> None:
    """The trunk's layers from a classifier's; of ssdlite, whose last blocks are half as wide, those that fit."""
    name = "mobilenet_v3_large" if train.network == "ssdlite" else train.backbone
    state = imagenet_weights(name)
    trunk = networks.trunk_of(network)
    own = trunk.state_dict()
    if train.network == "ssdlite":
        own_keys, given = list(own), [key for key in state if key.startswith("features.")]
        state = {mine: state[theirs] for mine, theirs in zip(own_keys, given, strict=False)}
    else:
        state = {key.removeprefix("features."): value for key, value in state.items()}
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    trunk.load_state_dict(fitting, strict=False)


def _coco(train: DetectionTrain) -> tuple[dict[str, Tensor], list[str]]:
    """A detector's weights and the names of its rows."""
    from torchvision.models import get_model, get_model_weights

    name = {"ssdlite": "ssdlite320_mobilenet_v3_large"}.get(train.network, f"{train.network}_{train.backbone}_fpn")
    weights = get_model_weights(name).DEFAULT
    file = weights.url.rpartition("/")[2]
    place = f"{torch.hub.get_dir()}/checkpoints/{file}"
    try:
        state = get_model(name, weights=weights, progress=False).state_dict()
    except OSError as error:  # URLError, timeouts and refused connections are OSErrors
        raise UserError(
            f"COCO weights of {name} could not be downloaded ({error}); put {file} (from {weights.url}) at {place}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{place} is damaged ({' '.join(str(error).split())[:80]}); delete it and run again") from None
    return state, ["", *weights.meta["categories"][1:]]  # row 0 is nothing, also where a network has no background


def _fill(
    network: nn.Module,
    layers: list[nn.Module],
    state: dict[str, Tensor],
    before: list[str],
    rows: list[str],
    source: str,
) -> None:
    """Every tensor; those of the class layers row by row, new classes keep their fresh ones."""
    own = network.state_dict()
    mine = {f"{name}.{key}" for name, part in network.named_modules() if part in layers for key in part.state_dict()}
    wrong = [
        key
        for key in own
        if key not in mine and "num_batches" not in key and (key not in state or state[key].shape != own[key].shape)
    ]
    if wrong:
        raise UserError(
            f"{source} does not fit the network: {len(wrong)} of {len(own)} tensors are missing or of another shape,"
            f" '{wrong[0]}' first. Set network, backbone, width and anchor as they were, or other train.weights"
        )
    known = [row for row in rows if row in before]
    for key in mine:
        after = BOX if "bbox_pred" in key else 1
        new = own[key].clone().view(-1, len(rows), after, *own[key].shape[1:])
        old = state[key].reshape(-1, len(before), after, *own[key].shape[1:])
        new[:, [rows.index(row) for row in known]] = old[:, [before.index(row) for row in known]]
        own[key] = new.view_as(own[key])
    network.load_state_dict(own | {key: state[key] for key in own if key in state and key not in mine})
