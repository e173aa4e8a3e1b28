"""Weights to start from, out of a file, whatever the kind. The head is kept as far as its classes are the same."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.common.errors import UserError

SAFETENSORS_HEADER = 8  # bytes: the length of the JSON that follows
NESTED = ("state_dict", "model")  # where training scripts put a state_dict in their checkpoints


def load_weights(
    network: nn.Module,
    head: list[nn.Module],
    name: str,
    labels: tuple[str, ...],
    initial: Path,
    fit: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> None:
    """Fills `network`, called `name`, from a weights.pt; a class known before keeps its rows of the `head` layers.

    fit: makes a library's own state_dict fit the network. Raises UserError where the file cannot be read or is another
    network's.
    """
    saved = read_weights(initial)
    if saved.get("network", name) != name:
        raise UserError(
            f"{initial} holds a {saved['network']}, params say network: {name}."
            f" Set train.network: {saved['network']}, or other train.weights"
        )
    state = saved["state"] if "state" in saved else fit(saved) if fit else saved
    if tuple(saved.get("labels", labels)) != labels:
        state = _remap_head_rows(network, head, state, tuple(saved["labels"]), labels)
    load_matching_tensors(network, head, state, str(initial))


def read_weights(path: Path, advice: str = "give a weights.pt of a training") -> dict[str, Any]:
    """What a weights file holds: a weights.pt, or a state_dict as .pth or .safetensors, whatever it is called.

    Code that a pickle would run is refused. UserError where the file is nothing of the kind; `advice`: what to do then.
    """
    try:
        saved = _read(path)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as weights ({_reason(error)}); {advice}") from None
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds a {type(saved).__name__}, not a state_dict; {advice}")
    return saved


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(SAFETENSORS_HEADER + 1)
    if start[SAFETENSORS_HEADER:] == b"{":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles that are then refused
        saved = torch.load(path, map_location="cpu", weights_only=True)
    nested = [saved[key] for key in NESTED if isinstance(saved, dict) and isinstance(saved.get(key), dict)]
    return nested[0] if nested else saved


def _reason(error: Exception) -> str:
    if "Weights only load failed" in str(error):
        return "it is damaged, or holds pickled code, which is never run"
    return " ".join(str(error).split())[:100]


def load_matching_tensors(network: nn.Module, head: list[nn.Module], state: dict[str, Tensor], source: str) -> None:
    """Every tensor of the right shape; those of the head may be missing or of another number of classes."""
    current = network.state_dict()
    head_keys = _parameter_names(network, head)
    fitting = {key: value for key, value in state.items() if key in current and current[key].shape == value.shape}
    missing = [key for key in current if key not in fitting and key not in head_keys and "num_batches" not in key]
    if missing:
        raise UserError(
            f"{source} does not fit the network: {len(missing)} of {len(current)} tensors are missing or of another"
            f" shape, '{missing[0]}' first. Set the network, its width and image_size as they were, or other"
            " train.weights"
        )
    network.load_state_dict(fitting, strict=False)


def _remap_head_rows(
    network: nn.Module, head: list[nn.Module], state: dict[str, Tensor], old: tuple[str, ...], new: tuple[str, ...]
) -> dict[str, Tensor]:
    """`state` with the head's rows of classes known before in their new places; new classes keep their fresh ones."""
    state = dict(state)
    current = network.state_dict()
    shared = [label for label in new if label in old]
    new_rows, old_rows = [new.index(label) for label in shared], [old.index(label) for label in shared]
    for key in _parameter_names(network, head) & set(state):
        rows = current[key].clone()
        rows[new_rows] = state[key][old_rows].to(rows.dtype)
        state[key] = rows
    return state


def _parameter_names(network: nn.Module, head: list[nn.Module]) -> set[str]:
    return {
        f"{name}.{key}" for name, module in network.named_modules() if module in head for key in module.state_dict()
    }
