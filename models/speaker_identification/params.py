"""Params of speaker identification beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.audio.params import AudioAugment, AudioData
from models.common.params import Dropout, LabelSmoothing, TrainParams

BUILTIN_NETWORKS = ("bc_resnet", "crnn")


class SpeakerData(AudioData):
    """The `data` section. The label is the speaker; `group` keeps a session, one day's recordings, in one split."""

    speaker_column: str = "label"  # a speaker in train and test is what is wanted here


class VoiceAugment(AudioAugment):
    """Random changes to training recordings that leave a voice as it is."""

    shift: float = Field(default=0.0, ge=0, le=10)  # seconds, either way; stretches are cut at random places anyway
    speed: float = Field(default=0.0, ge=0, lt=0.5)  # off: another speed is another pitch, so another voice
    filter_db: float = Field(default=0.0, ge=0, le=40)  # off: how loud its bands are is part of a voice


class SpeakerTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)  # of timm's networks
    MAX_BATCH_SIZE: ClassVar[int] = 64

    network: str = "bc_resnet"  # bc_resnet, crnn, or timm/<name> on log-mel
    width: float = Field(default=1.0, gt=0)  # of our own networks: times the usual channels
    mels: int = Field(default=60, ge=8, le=128)  # bands of the log-mel spectrogram
    pooling: Literal["attentive", "statistics"] = "attentive"  # over time; statistics: every frame counts the same
    dim: int = Field(default=128, ge=2)  # numbers of an embedding
    margin: float = Field(default=0.2, ge=0, lt=1)  # of the cosine, AM-softmax; 0: plain softmax over cosines
    scale: float = Field(default=20.0, gt=0)  # times the cosine: the sharpness of the softmax
    crop_seconds: tuple[float, float] = (0.4, 2.0)  # a batch learns from stretches of one random length, from .. to
    dropout: Dropout = 0.0  # before the embedding
    label_smoothing: LabelSmoothing = 0.0
    augment: VoiceAugment = VoiceAugment()
    compile: bool = False
    metric: Literal["loss", "accuracy"] = "loss"  # on validation: which epoch is kept, when to stop

    @property
    def pretrained(self) -> str | None:
        """ImageNet's, which timm's networks have."""
        return None if self.network in BUILTIN_NETWORKS else "imagenet"

    @model_validator(mode="after")
    def _network_is_known(self) -> Self:
        if self.network not in BUILTIN_NETWORKS and not self.network.startswith("timm/"):
            raise ValueError(
                f"unknown network '{self.network}'. Known: {', '.join(BUILTIN_NETWORKS)}, and timm's as timm/<name>"
            )
        if self.network in BUILTIN_NETWORKS and self.weights == "imagenet":
            raise ValueError(f"network: {self.network} has no imagenet weights; name timm/<name> or set weights: none")
        return self

    @model_validator(mode="after")
    def _stretches_have_a_length(self) -> Self:
        if not 0.1 <= self.crop_seconds[0] <= self.crop_seconds[1]:
            raise ValueError(f"crop_seconds {list(self.crop_seconds)} must rise, from 0.1 s or more")
        return self


Data = SpeakerData
Train = SpeakerTrain
