"""Params of pictures with sound beyond those that every kind shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.audio.params import AudioAugment, AudioData
from models.common.image.params import BUILTIN_NETWORKS, ImageAugment, PhotoData
from models.common.params import Dropout, LabelSmoothing, Share, TrainParams


class AudioVisualData(AudioData, PhotoData):
    """The `data` section: everything that is asked of photos and of recordings, and how often one may be missing."""

    image_size: int = Field(default=64, ge=8, le=2048)  # px, square: what the program takes
    clip_seconds: float = Field(default=1.0, ge=0.1, le=60)  # what the program takes; of longer sounds the loudest part
    max_missing: Share = 0.2  # share of the examples that may lack their picture, or their sound, without a warning

    @model_validator(mode="after")
    def _clip_is_part_of_a_recording(self) -> Self:
        if self.clip_seconds > self.max_seconds:
            raise ValueError(f"clip_seconds ({self.clip_seconds}) must not be above max_seconds ({self.max_seconds})")
        return self


class AudioVisualTrain(TrainParams):
    """The `train` section."""

    WEIGHT_SOURCES: ClassVar[tuple[str, ...]] = ("imagenet",)  # of the image network; the rest starts from nothing
    MAX_BATCH_SIZE: ClassVar[int] = 64

    image_network: str = "small_cnn"  # small_cnn, resnet9, timm/<name>, or a torchvision classifier by name
    image_width: int = Field(default=16, ge=4)  # channels of the stem of small_cnn and resnet9
    audio_network: Literal["bc_resnet", "crnn"] = "bc_resnet"
    audio_width: float = Field(default=1.0, gt=0)  # times the usual channels
    mels: int = Field(default=40, ge=8, le=128)  # bands of the log-mel spectrogram
    fusion: int = Field(default=128, ge=8)  # numbers that each half is brought to before both are joined
    dropout: Dropout = 0.0  # before the head
    label_smoothing: LabelSmoothing = 0.0
    modality_dropout: Share = 0.67  # share of the loss that is about answers from one half alone
    augment_image: ImageAugment = ImageAugment()
    augment_audio: AudioAugment = AudioAugment()
    channels_last: bool = True  # of the image network
    compile: bool = False
    metric: Literal["loss", "accuracy"] = "loss"  # on validation: which epoch is kept, when to stop

    @property
    def pretrained(self) -> str | None:
        """ImageNet's, which every network of a library has."""
        return None if self.image_network in BUILTIN_NETWORKS else "imagenet"

    @model_validator(mode="after")
    def _imagenet_needs_a_librarys_network(self) -> Self:
        if self.image_network in BUILTIN_NETWORKS and self.weights == "imagenet":
            raise ValueError(
                f"image_network: {self.image_network} has no imagenet weights; name one of timm's or torchvision's,"
                " or set weights: none"
            )
        return self


Data = AudioVisualData
Train = AudioVisualTrain
