"""Params of semantic segmentation beyond those that every kind shares."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.image.params import PhotoData
from models.common.params import Dropout, LabelSmoothing, Section, TrainParams

Side = Annotated[int, Field(ge=16, le=2048)]  # px
VOID = ("void", "unlabelled", "unlabeled", "ignore", 255)
HEADS = ("lraspp", "deeplabv3", "fcn")  # torchvision's, on any of BACKBONES: "deeplabv3_resnet50"
BACKBONES = (
    r"resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d|101_64x4d)|wide_resnet(50|101)_2|mobilenet_v3_(small|large)"
)
SMALL_FPN = "small_fpn"


class SegmentationData(PhotoData):
    """The `data` section: what size the network sees, which pixels count, which pictures are refused."""

    image_size: Side | tuple[Side, Side] = 256  # px, [width, height] or both: pictures are stretched to it
    void: tuple[str | int, ...] = VOID  # classes, by name or number, whose pixels are neither learnt nor scored
    max_void: float = Field(default=0.5, gt=0, le=1)  # share of a picture that may be void: more warns
    min_side: int = Field(default=16, ge=1)  # px; smaller pictures are quarantined

    @model_validator(mode="before")
    @classmethod
    def _accept_single_void(cls, section: object) -> object:
        if isinstance(section, dict) and isinstance(section.get("void"), str | int):
            return {**section, "void": (section["void"],)}
        return section

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what the program takes, px."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def is_void(self, name: str, number: int | None = None) -> bool:
        """Whether a class is one of `void`; names are compared without regard to case."""
        names = {each.casefold() for each in self.void if isinstance(each, str)}
        return name.casefold() in names or number in self.void


class Augment(Section):
    """Random changes to training pictures and their masks alike, a whole batch at once on the device. 0: off."""

    crop: tuple[Side, Side] | None = None  # px of image_size, [width, height]: learn from random parts; None: whole
    scale: float = Field(
        default=0.25, ge=0, lt=1
    )  # zoom in or out by up to this share; what is beyond the edge is void
    horizontal_flip: bool = True
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    tint: float = Field(default=0.0, ge=0, le=1)  # each colour lightened or darkened by itself


class SegmentationTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)
    MAX_BATCH_SIZE: ClassVar[int] = 8
    UPDATES: ClassVar[int] = 1500

    network: str = SMALL_FPN  # or <head>_<backbone> of torchvision: lraspp_mobilenet_v3_large, deeplabv3_resnet50
    width: int = Field(default=32, ge=4)  # channels of the stem of our own network
    dropout: Dropout = 0.0  # before the layers that give logits
    label_smoothing: LabelSmoothing = 0.0
    augment: Augment = Augment()
    class_weights: Literal["none", "inverse_log"] = "none"  # inverse_log: rare classes weigh more, up to 50 times
    dice: float = Field(default=0.0, ge=0)  # weight of the Dice loss beside cross-entropy
    channels_last: bool = True
    compile: bool = False
    metric: Literal["loss", "mean_iou"] = "mean_iou"  # on validation: which epoch is kept, when to stop

    @property
    def pretrained(self) -> str | None:
        """ImageNet's, which every network of a library has."""
        return None if self.network == SMALL_FPN else "imagenet"

    @model_validator(mode="after")
    def _network_is_known(self) -> Self:
        head, _, backbone = self.network.partition("_")
        if self.network != SMALL_FPN and not (head in HEADS and re.fullmatch(BACKBONES, backbone)):
            raise ValueError(
                f"unknown network '{self.network}'. Known: {SMALL_FPN}, and {', '.join(HEADS)} each followed by _ and a"
                " backbone: resnet18, resnet34, resnet50, resnet101, mobilenet_v3_small, mobilenet_v3_large, …"
            )
        return self

    @model_validator(mode="after")
    def _imagenet_needs_a_torchvision_network(self) -> Self:
        if self.network == SMALL_FPN and self.weights == "imagenet":
            raise ValueError(f"network: {SMALL_FPN} has no imagenet weights; name another or set weights: none")
        return self


Data = SegmentationData
Train = SegmentationTrain
