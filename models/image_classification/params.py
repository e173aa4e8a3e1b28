"""Params of image classification beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from models.common.image.params import BUILTIN_NETWORKS, ImageAugment, PhotoData
from models.common.params import Dropout, LabelSmoothing, Mixup, TrainParams

MIN_SIZE = 8  # px


class ImageData(PhotoData):
    """The `data` section: what size pictures have and which are refused."""

    image_size: int = Field(default=0, ge=0, le=2048)  # px, square: what the program takes; 0: follows from the photos
    # and the network

    @field_validator("image_size")
    @classmethod
    def _size_is_none_or_usable(cls, size: int) -> int:
        if 0 < size < MIN_SIZE:
            raise ValueError(f"image_size is {size} px; give at least {MIN_SIZE}, or 0 for what suits the photos")
        return size


class ImageTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)

    network: str = "timm/tf_efficientnet_lite0"  # timm/<name>, a torchvision classifier, small_cnn or resnet9
    width: int = Field(default=32, ge=4)  # channels of the stem of our own networks
    dropout: Dropout = 0.0  # before the head
    label_smoothing: LabelSmoothing = 0.0
    mixup: Mixup = 0.0
    augment: ImageAugment = ImageAugment()
    channels_last: bool = True
    compile: bool = False
    metric: Literal["loss", "accuracy"] = "loss"  # on validation: which epoch is kept, when to stop

    @property
    def pretrained(self) -> str | None:
        """ImageNet's, which every network of a library has."""
        return None if self.network in BUILTIN_NETWORKS else "imagenet"

    @model_validator(mode="after")
    def _imagenet_needs_a_librarys_network(self) -> Self:
        if self.network in BUILTIN_NETWORKS and self.weights == "imagenet":
            raise ValueError(
                f"network: {self.network} has no imagenet weights; name one of timm's or torchvision's, or set"
                " weights: none"
            )
        return self


Data = ImageData
Train = ImageTrain
