"""torchvision's ImageNet weights, downloaded once, or an error that says which file to put where."""

import pickle
from collections.abc import Mapping
from urllib.parse import urlparse

import torch
from torch import Tensor

from models.common.errors import UserError


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The newest ImageNet weights of a torchvision classifier.

    Raises UserError where they can be neither found nor downloaded, saying which file to put where.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    file = urlparse(weights.url).path.rpartition("/")[2]
    path = f"{torch.hub.get_dir()}/checkpoints/{file}"
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu")
    except OSError as error:  # URLError, timeouts and refused connections are OSErrors
        raise UserError(
            f"ImageNet weights of {name} could not be downloaded ({error}); put {file} (from {weights.url}) at {path}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:80]}); delete it and run again") from None
    return dict(state)
