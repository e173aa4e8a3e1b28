"""The parts of a model's params that every kind shares. Frozen, typed, and refusing what they do not know."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]  # before the head
LabelSmoothing = Annotated[float, Field(ge=0, lt=1)]
UnfreezePolicy = Literal["auto", "head", "head_first", "gradual", "all"]
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
    MAX_BATCH_SIZE, UPDATES: the largest batch that is chosen by itself, and how many updates of the weights a training
    from nothing needs, about.
    """

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet", "pretrained")
    MAX_BATCH_SIZE: ClassVar[int] = 256
    UPDATES: ClassVar[int] = 1000

    weights: str = "auto"  # auto | none | one of WEIGHT_SOURCES | champion | path of a weights file
    unfreeze: UnfreezePolicy = "auto"
    epochs: int = Field(default=0, ge=0)  # 0: follows from the amount of data
    batch_size: int = Field(default=0, ge=0)  # 0: follows from the amount of data
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=0.0, ge=0)  # of the head, at its peak; 0: follows from the weights
    layer_decay: float = Field(default=0.0, ge=0, le=1)  # of each group before the head; 1: one rate for all; 0: auto
    weight_decay: float = Field(default=0.05, ge=0)  # not on norms and biases
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd only
    warmup_epochs: float = Field(default=0.5, ge=0)  # the rate rises from nothing over these
    decay_share: float = Field(default=0.5, gt=0, le=1)  # of the epochs, over which it comes down at the end
    metric: str = "loss"  # on validation: which epoch is kept, when to stop; a kind names those that it has
    early_stopping: int = Field(default=5, ge=0)  # epochs without a better `metric` until the rate comes down; 0: off
    ema_decay: float | None = Field(default=None, ge=0, lt=1)  # None: follows from the number of updates; 0: off
    max_grad_norm: float = Field(default=1.0, ge=0)  # 0: off
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where hardware multiplies it, else fp32
    devices: int = Field(default=1, ge=1)  # GPUs to use; 1 also where there is none
    seed: int = 0
    wandb: bool = False

    @property
    def pretrained(self) -> str | None:
        """The one of WEIGHT_SOURCES that the network has, which `weights: auto` takes; None where it has none."""
        return None

    def starting_weights(self, *, has_initial: bool) -> str:
        """`weights`, with auto resolved, and champion where there is none yet (`has_initial`: whether there is)."""
        open_to_us = self.weights == "auto" or (self.weights == "champion" and not has_initial)
        return (self.pretrained or "none") if open_to_us else self.weights

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.unfreeze not in ("auto", "all") and self.starting_weights(has_initial=True) == "none":
            raise ValueError(
                f"unfreeze: {self.unfreeze} freezes layers that weights: {self.weights} never trained;"
                f" set weights: {', '.join([*self.WEIGHT_SOURCES, 'champion'])} or a path, or unfreeze: all"
            )
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        return self
