"""Params of speech commands beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.audio.params import AudioAugment, AudioData
from models.common.params import Dropout, LabelSmoothing, Mixup, TrainParams

BUILTIN_NETWORKS = ("mel_resnet", "bc_resnet", "crnn")  # the fastest to train first


class CommandData(AudioData):
    """The `data` section."""

    clip_seconds: float = Field(default=1.0, ge=0.1, le=30)  # heard at a time: shorter recordings get silence around
    # them, of longer ones the stretch with the most energy is taken

    @property
    def samples(self) -> int:
        """Of a clip."""
        return round(self.clip_seconds * self.sample_rate)


class CommandTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("pretrained", "imagenet")  # of bundles, of timm's networks
    MAX_BATCH_SIZE: ClassVar[int] = 64

    network: str = "mel_resnet"  # mel_resnet, bc_resnet, crnn, timm/<name> on log-mel, or a torchaudio bundle:
    # wav2vec2_base, hubert_base, …
    width: float = Field(default=1.0, gt=0)  # of our own networks: times the usual channels
    mels: int = Field(default=40, ge=8, le=128)  # bands of the log-mel spectrogram
    dropout: Dropout = 0.0  # before the head
    label_smoothing: LabelSmoothing = 0.0
    mixup: Mixup = 0.0
    augment: AudioAugment = AudioAugment()
    compile: bool = False
    metric: Literal["loss", "accuracy"] = "loss"  # on validation: which epoch is kept, when to stop

    @property
    def pretrained(self) -> str | None:
        """torchaudio's, which every bundle has, or ImageNet's, which timm's networks have."""
        if self.network in BUILTIN_NETWORKS:
            return None
        return "imagenet" if self.network.startswith("timm/") else "pretrained"

    @model_validator(mode="after")
    def _weights_are_the_networks(self) -> Self:
        if self.weights in self.WEIGHT_SOURCES and self.weights != self.pretrained:
            raise ValueError(
                f"network: {self.network} has no {self.weights} weights; name a torchaudio bundle (wav2vec2_base, …)"
                " for pretrained ones, timm/<name> for imagenet ones, or set weights: none"
            )
        return self


Data = CommandData
Train = CommandTrain
