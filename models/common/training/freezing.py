"""Layer groups from stem to head, and which of them learn when: `unfreeze` and `layer_decay` work on these groups."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from models.common.params import UnfreezePolicy

HEAD_UPDATES = 60  # updates that a new head learns alone before the rest opens, at least one epoch
MAX_HEAD_SHARE = 0.25  # of the epochs


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are frozen, and get their learning rate, together."""

    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]  # the modules' own, and bare ones such as a position embedding


def layer_groups(network: nn.Module, head: list[nn.Module]) -> list[LayerGroup]:
    """The network cut from stem to head; the last group is the head, its first holds whatever belongs to no layer.

    A part with more than half of all layers in it (a ResNet's stages in one Sequential, a transformer's encoder) is
    cut up further, so every family comes out as a handful to a few dozen groups.
    """
    head_modules = {module for layer in head for module in layer.modules()}
    limit = sum(1 for _ in network.modules()) / 2
    units = _merged([unit for unit in _units(network, head_modules, limit) if _parameters([unit])])
    groups = [LayerGroup(tuple(unit), tuple(_parameters(unit))) for unit in units]
    last = LayerGroup(tuple(head), tuple(_parameters(head)))
    grouped = {parameter for group in [*groups, last] for parameter in group.parameters}
    ungrouped = tuple(parameter for parameter in network.parameters() if parameter not in grouped)
    if groups:
        groups[0] = LayerGroup(groups[0].modules, ungrouped + groups[0].parameters)
    return [*groups, last]


def trainable_groups(policy: UnfreezePolicy, groups: int, epoch: int, epochs: int, head_epochs: int) -> int:
    """How many groups, counted from the head, learn in `epoch` (from 0).

    head_first: the head alone for `head_epochs`, then all, so that a head that knows nothing spoils no features (LP-FT,
    Kumar et al. 2022). gradual: one more at a time and evenly, all of them from half of the epochs on (after ULMFiT,
    Howard & Ruder 2018).
    """
    if policy == "head" or (policy == "head_first" and epoch < head_epochs):
        return 1
    if policy == "gradual":
        half = max(1, epochs // 2)
        return min(groups, 1 + (groups - 1) * epoch // half)
    return groups


def head_only_epochs(policy: UnfreezePolicy, steps: int, epochs: int) -> int:
    """How many epochs, of `steps` updates each, the head learns alone before all the rest opens."""
    if policy != "head_first" or epochs == 1:
        return 0
    return max(1, min(-(-HEAD_UPDATES // steps), round(MAX_HEAD_SHARE * epochs)))


def freeze(network: nn.Module, groups: list[LayerGroup], trainable: int) -> None:
    """Puts the network in training mode with only the last `trainable` groups learning.

    Frozen groups stay in evaluation mode: their BatchNorm keeps the statistics that their weights were trained with.
    """
    network.train()
    for index, group in enumerate(groups):
        unfrozen = index >= len(groups) - trainable
        for parameter in group.parameters:
            parameter.requires_grad_(unfrozen)
        for module in group.modules:
            module.train(unfrozen)


def _units(module: nn.Module, head: set[nn.Module], limit: float) -> Iterator[nn.Module]:
    for child in module.children():
        if child in head:
            continue
        inside = list(child.modules())
        if len(inside) > limit or any(layer in head for layer in inside):
            yield from _units(child, head, limit)
        else:
            yield child


def _merged(units: list[nn.Module]) -> list[list[nn.Module]]:
    """A norm that stands alone goes with the layer before it."""
    merged: list[list[nn.Module]] = []
    for unit in units:
        norm = not any(True for _ in unit.children()) and not isinstance(unit, nn.Conv2d | nn.Linear)
        if merged and norm:
            merged[-1].append(unit)
        else:
            merged.append([unit])
    return merged


def _parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))
