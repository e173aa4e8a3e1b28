"""Names of networks: `timm/<name>` for timm's, a bare name for torchvision's classifiers, a few of our own.

A timm name may say which weights it wants: `timm/resnet18.a1_in1k`. Either library is imported only where it is asked.
"""

import difflib
from collections.abc import Collection

from models.common.errors import UserError
from models.common.image.params import BUILTIN_NETWORKS

TIMM = "timm/"
SUGGESTIONS = 4


def is_timm(name: str) -> bool:
    """Whether a name is meant for timm."""
    return name.startswith(TIMM)


def timm_name(name: str) -> str:
    """What timm itself calls it: the architecture, perhaps with the tag of its weights."""
    return name.removeprefix(TIMM)


def timm_architecture(name: str) -> str:
    """What timm calls the architecture alone."""
    return timm_name(name).partition(".")[0]


def known_network(name: str, builtin: Collection[str] = tuple(BUILTIN_NETWORKS)) -> str:
    """`name` itself where it is a network's; UserError with the nearest names of both libraries where it is not.

    builtin: the kind's own networks, which are known without the seconds that the libraries take to import.
    """
    if name in builtin or _is_library_network(name):
        return name
    nearest = nearest_names(name, builtin)
    suggestion = f" Did you mean: {', '.join(nearest)}?" if nearest else ""
    raise UserError(
        f"Unknown network '{name}'.{suggestion} Known: {', '.join(builtin)}, torchvision's classifiers, and timm's as"
        f" {TIMM}<name>"
    )


def nearest_names(name: str, builtin: Collection[str]) -> list[str]:
    """The names most like `name`, the likest first, of our own networks and of both libraries."""
    if is_timm(name) and (tagged := _tagged_names(timm_architecture(name))):
        return difflib.get_close_matches(name, tagged, n=SUGGESTIONS, cutoff=0.0)
    libraries = {known.removeprefix(TIMM): known for known in (*_timm_names(), *torchvision_names(), *builtin)}
    close = difflib.get_close_matches(timm_name(name).lower(), list(libraries), n=SUGGESTIONS, cutoff=0.4)
    both = [known for short in close for known in (short, f"{TIMM}{short}") if _is_library_network(known)]
    own = [short for short in close if short in builtin]
    return list(dict.fromkeys(own + both))[:SUGGESTIONS]


def torchvision_names() -> list[str]:
    """Every torchvision classifier."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _timm_names() -> list[str]:
    import timm

    return [f"{TIMM}{name}" for name in timm.list_models()]


def _tagged_names(architecture: str) -> list[str]:
    """A timm network with each of the weights that there are of it."""
    import timm

    return [f"{TIMM}{name}" for name in timm.list_models(f"{architecture}.*", pretrained=True)]


def _is_library_network(name: str) -> bool:
    if not is_timm(name):
        return name in torchvision_names()
    import timm

    architecture, _, tag = timm_name(name).partition(".")
    if not timm.is_model(architecture):
        return False
    return not tag or timm.is_model_pretrained(timm_name(name))
