"""Params of object detection beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.objects.params import BoxAugment, ObjectData, ObjectTrain


class DetectionData(ObjectData):
    """The `data` section: what size pictures are given to the network in, and which are refused."""

    max_boxes: int = Field(default=100, ge=1, le=1000)  # answered for one picture


COCO = ("ssdlite", "retinanet-resnet50", "fcos-resnet50", "fasterrcnn-resnet50")  # designs that torchvision trained


class DetectionTrain(ObjectTrain):
    """The `train` section; the network `ssdlite` has a backbone and anchors of its own."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet", "coco")

    network: Literal["ssdlite", "retinanet", "fcos", "fasterrcnn"] = "fcos"
    augment: BoxAugment = BoxAugment()
    metric: Literal["loss", "map50"] = "map50"  # on validation: which epoch is kept, when to stop

    @property
    def design(self) -> str:
        """What the weights fit: network and backbone."""
        return self.network if self.network == "ssdlite" else f"{self.network}-{self.backbone}"

    @property
    def pretrained(self) -> str | None:
        """ImageNet's, which every backbone of a library has."""
        return "imagenet" if self.network == "ssdlite" else super().pretrained

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.weights == "imagenet" and self.backbone == "small" and self.network != "ssdlite":
            raise ValueError("backbone: small has no imagenet weights; name another backbone or set weights: none")
        if self.weights == "coco" and self.design not in COCO:
            raise ValueError(f"there are no coco weights of {self.design}; there are of: {', '.join(COCO)}")
        return self


Data = DetectionData
Train = DetectionTrain
