"""Params of instance segmentation beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.objects.params import Augment, ObjectData, ObjectTrain


class InstanceData(ObjectData):
    """The `data` section: what size pictures are given to the network in, and which are refused."""

    outside: float = Field(default=3.0, ge=0)  # px by which a mask may leave its box; more is quarantined
    max_objects: int = Field(default=100, ge=1, le=1000)  # answered for one picture


class InstanceTrain(ObjectTrain):
    """The `train` section: Mask R-CNN (He et al. 2017) on a choice of backbones."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)

    network: Literal["maskrcnn"] = "maskrcnn"
    augment: Augment = Augment()
    metric: Literal["loss", "map"] = "map"  # on validation: which epoch is kept, when to stop

    @property
    def design(self) -> str:
        """What the weights fit: network and backbone."""
        return f"{self.network}-{self.backbone}"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.weights == "imagenet" and self.backbone == "small":
            raise ValueError("backbone: small has no imagenet weights; name another backbone or set weights: none")
        return self


Data = InstanceData
Train = InstanceTrain
