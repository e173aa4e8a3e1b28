"""Params of image classification beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.params import DataParams, Dropout, LabelSmoothing, Mixup, Section, TrainParams


class ImageData(DataParams):
    """The `data` section: what size pictures have and which are refused."""

    image_size: int = Field(default=224, ge=8, le=2048)  # px, square: what the program takes
    max_pixels: int = Field(default=50_000_000, ge=64)  # of one picture as delivered; more is quarantined
    min_side: int = Field(default=4, ge=1)  # px; smaller pictures are quarantined
    near_duplicate_bits: int = Field(default=2, ge=0, le=8)  # differing bits of the 64-bit perceptual hash


class Augment(Section):
    """Random changes to training pictures, applied to a whole batch at once on the device. 0 or false: off."""

    crop: float = Field(default=0.125, ge=0, le=0.5)  # shift by up to this share of the side, edges reflected
    scale: float = Field(default=0.0, ge=0, lt=1)  # zoom in by up to this share
    horizontal_flip: bool = False  # off: digits, letters and road signs do not survive it
    rotate: float = Field(default=0.0, ge=0, le=180)  # degrees, either way
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    erase: float = Field(default=0.0, ge=0, le=1)  # share of pictures that lose a random rectangle


BUILTIN_NETWORKS = {"small_cnn": 2, "resnet9": 1}  # our own for little pictures: how many times the stem halves them


class ImageTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)

    network: str = "small_cnn"  # small_cnn, resnet9, or any torchvision classifier by name
    width: int = Field(default=32, ge=4)  # channels of the stem of our own networks
    dropout: Dropout = 0.0  # before the head
    label_smoothing: LabelSmoothing = 0.0
    mixup: Mixup = 0.0
    augment: Augment = Augment()
    channels_last: bool = True
    compile: bool = False
    metric: Literal["loss", "accuracy"] = "loss"  # on validation: which epoch is kept, when to stop

    @model_validator(mode="after")
    def _imagenet_needs_a_torchvision_network(self) -> Self:
        if self.network in BUILTIN_NETWORKS and self.weights == "imagenet":
            raise ValueError(
                f"network: {self.network} has no imagenet weights; name a torchvision network or set weights: none"
            )
        return self


Data = ImageData
Train = ImageTrain
