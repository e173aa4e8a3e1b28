"""Weights to start from: ImageNet's in the trunk, the champion's, a file's.

The layers that name classes are kept as far as their classes are the same."""

from pathlib import Path

from torch import Tensor, nn

from models.common.errors import UserError
from models.common.image.imagenet import imagenet_weights
from models.common.objects.backbones import trunk_of
from models.common.training.weights import read_weights
from models.instance_segmentation.params import InstanceTrain

BACKGROUND = ""


def load_initial(
    network: nn.Module,
    class_layers: list[nn.Module],
    train: InstanceTrain,
    labels: tuple[str, ...],
    initial: Path | None,
) -> None:
    """Fills `network` as `train.weights` says, from the file `initial` where that is the champion's or a path.

    Raises UserError where the weights cannot be had or are another network's.
    """
    if train.weights == "imagenet":
        state = {key.removeprefix("features."): value for key, value in imagenet_weights(train.backbone).items()}
        trunk = trunk_of(network)
        trunk.load_state_dict({key: value for key, value in state.items() if key in trunk.state_dict()}, strict=False)
    elif initial:
        saved = read_weights(initial)
        if saved.get("network") != train.design or "labels" not in saved:
            raise UserError(
                f"{initial} holds a {saved.get('network', 'bare state_dict')}, params say {train.design}."
                " Set train.backbone as it was, or other train.weights"
            )
        _fill(network, class_layers, saved["state"], tuple(saved["labels"]), labels, str(initial))


def _fill(
    network: nn.Module,
    layers: list[nn.Module],
    state: dict[str, Tensor],
    before: tuple[str, ...],
    labels: tuple[str, ...],
    source: str,
) -> None:
    """Every tensor; those of the class layers class by class, new ones keep their fresh rows."""
    own = network.state_dict()
    mine = {f"{name}.{key}" for name, part in network.named_modules() if part in layers for key in part.state_dict()}
    wrong = [key for key in own if key not in state or (key not in mine and state[key].shape != own[key].shape)]
    if wrong:
        raise UserError(
            f"{source} does not fit the network: {len(wrong)} of {len(own)} tensors are missing or of another shape,"
            f" '{wrong[0]}' first. Set backbone, width and anchor as they were, or other train.weights"
        )
    rows, known = (BACKGROUND, *labels), (BACKGROUND, *before)
    shared = [row for row in rows if row in known]
    to, of = [rows.index(row) for row in shared], [known.index(row) for row in shared]
    for key in mine:  # the background's row or rows first, then as many for each class
        new, old = own[key].clone(), state[key]
        new.view(len(rows), -1)[to] = old.reshape(len(known), -1)[of].to(new.dtype)
        own[key] = new
    network.load_state_dict(own | {key: state[key] for key in own if key not in mine})
