"""The parts of a model's params that every kind shares. Frozen, typed, and refusing what they do not know."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]  # before the head
LabelSmoothing = Annotated[float, Field(ge=0, lt=1)]
Mixup = Annotated[float, Field(ge=0)]  # alpha of the beta distribution; 0: off


class Section(BaseModel):
    """A frozen section of params.yaml that knows all of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Splits(Section):
    """Shares of examples that go to `val` and `test` by a hash of their group; the rest is `train`."""

    val: Share = 0.1
    test: Share = 0.2

    @model_validator(mode="after")
    def _check_training_share(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(
                f"val ({self.val}) and test ({self.test}) leave nothing to train on; keep their sum below 1"
            )
        return self


class DataParams(Section):
    """What every kind's `data` section has: how examples are split and what share of bad rows is tolerated."""

    splits: Splits = Splits()
    max_bad: Share = 0.05  # share of rows of a source that may be quarantined before the whole source is refused
    labels: tuple[str, ...] | None = None  # a closed set; None: whatever the data holds
    columns: dict[str, str] = {}  # of a metadata file, where they have other names: {label: speaker, group: session}
    max_drift: float = Field(default=0.2, gt=0)  # population stability index against the previous data version: warns
    min_per_class: int = Field(default=2, ge=1)  # training examples a class needs; fewer blocks


class TrainParams(Section):
    """How a network is trained: what the loop does for every kind. A kind adds the keys that it uses itself (network,
    dropout, augmentation, …); a key of another kind is refused as unknown.

    WEIGHT_SOURCES: sources of weights, beside none, champion and a path, that the kind sees to itself.
    """

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet", "pretrained")

    weights: str = "none"  # none | one of WEIGHT_SOURCES | champion | path of a weights file
    unfreeze: Literal["head", "gradual", "all"] = "all"
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)  # of the head; earlier layers get it times layer_decay each
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # 1: one rate for all layers
    weight_decay: float = Field(default=0.05, ge=0)  # not on norms and biases
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd only
    warmup_epochs: float = Field(default=0.5, ge=0)  # the rate rises from nothing over these, then falls by a cosine
    metric: str = "loss"  # on validation: which epoch is kept, when to stop; a kind names those that it has
    early_stopping: int = Field(default=5, ge=0)  # epochs without a better `metric`; 0: off
    ema_decay: float = Field(default=0.0, ge=0, lt=1)  # 0: off
    max_grad_norm: float = Field(default=1.0, ge=0)  # 0: off
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where hardware multiplies it, else fp32
    devices: int = Field(default=1, ge=1)  # GPUs to use; 1 also where there is none
    seed: int = 0
    wandb: bool = False

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.unfreeze != "all" and self.weights == "none":
            raise ValueError(
                f"unfreeze: {self.unfreeze} freezes layers that weights: none never trained;"
                " set weights: imagenet, champion or a path, or unfreeze: all"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        return self
