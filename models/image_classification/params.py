"""Params of image classification beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.image.params import BUILTIN_NETWORKS, ImageAugment, PhotoData
from models.common.params import Dropout, LabelSmoothing, Mixup, TrainParams


class ImageData(PhotoData):
    """The `data` section: what size pictures have and which are refused."""

    image_size: int = Field(default=224, ge=8, le=2048)  # px, square: what the program takes


class ImageTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)

    network: str = "small_cnn"  # small_cnn, resnet9, or any torchvision classifier by name
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
    def _imagenet_needs_a_torchvision_network(self) -> Self:
        if self.network in BUILTIN_NETWORKS and self.weights == "imagenet":
            raise ValueError(
                f"network: {self.network} has no imagenet weights; name a torchvision network or set weights: none"
            )
        return self


Data = ImageData
Train = ImageTrain
