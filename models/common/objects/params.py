"""Params that every kind that finds objects in pictures has."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from models.common.image.params import PhotoData
from models.common.params import Dropout, Section, Share, TrainParams

STRIDE = 32  # px: how far the backbones shrink a picture; sides that are no multiple would shift the grid of answers
Side = Annotated[int, Field(ge=32, le=2048, multiple_of=STRIDE)]


class ObjectData(PhotoData):
    """The `data` section: what size pictures are given to the network in, and which are refused."""

    image_size: Side | tuple[Side, Side] = 320  # px: width and height, or both; multiples of 32
    keep_aspect: bool = True  # a picture of another shape gets a grey edge to the right or below; false: stretched
    min_side: int = Field(default=16, ge=1)  # px; smaller pictures are quarantined
    near_duplicate_bits: int = Field(default=1, ge=0, le=8)  # differing bits of the 64-bit perceptual hash
    score_threshold: Share = 0.5  # the service answers objects from this score on; evaluation sees all
    nms_iou: Share = 0.5  # of two boxes of a class that overlap by more, the one with the lower score goes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class Augment(Section):
    """Random changes to training pictures and the objects in them, a whole batch at once on the device. 0: off."""

    horizontal_flip: bool = True
    vertical_flip: bool = False  # where there is no above and below: microscopes, satellites
    scale: float = Field(default=0.25, ge=0, lt=1)  # larger or smaller by up to this share
    shift: float = Field(default=0.1, ge=0, le=0.5)  # by up to this share of the side; what leaves the picture is cut
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)


class BoxAugment(Augment):
    """The same, and what only boxes bear."""

    mosaic: Share = 0.0  # share of batches in which each picture is put together from quarters of four


class ObjectTrain(TrainParams):
    """The `train` section of a detector on a choice of backbones."""

    MAX_BATCH_SIZE: ClassVar[int] = 8

    backbone: Literal["small", "resnet18", "resnet34", "resnet50", "mobilenet_v3_large"] = "small"
    width: int = Field(default=32, ge=8, multiple_of=8)  # channels of the stem of the backbone `small`
    anchor: int = Field(default=32, ge=8)  # px in the network's input: size of objects on its finest grid
    dropout: Dropout = 0.0  # before the layers that name classes
    compile: bool = False  # the backbone
    channels_last: bool = True

    @property
    def pretrained(self) -> str | None:
        """ImageNet's, which every network of a library has."""
        return None if self.backbone == "small" else "imagenet"
