"""Params of speech recognition beyond those that every kind on sound shares."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.common.audio.params import AudioAugment, AudioData
from models.common.params import Dropout, TrainParams

BUILTIN_NETWORKS = ("cnn_bigru", "cnn_bilstm", "conformer")


class SpeechData(AudioData):
    """The `data` section: how a transcript becomes the text that is learnt."""

    columns: dict[str, str] = {"label": "transcript"}  # noqa: RUF012  # pydantic copies it
    lower_case: bool = True
    ignored: str = '.,;:!?"“”„«»()[]…–—'  # marks that are not spoken; each is read as a space  # noqa: RUF001
    alphabet: str | None = None  # letters a transcript may have, without the space; None: those of the training split
    max_letters_per_second: float = Field(default=40.0, gt=0)  # more is warned of: sound and transcript do not match

    @model_validator(mode="after")
    def _check_alphabet(self) -> Self:
        for letter in self.alphabet or "":
            if letter in self.ignored or letter.isspace() or (self.lower_case and letter != letter.lower()):
                raise ValueError(f"alphabet has {letter!r}, which no transcript keeps; see lower_case and ignored")
        return self


class SpeechTrain(TrainParams):
    """The `train` section."""

    MAX_BATCH_SIZE: ClassVar[int] = 32

    network: str = (
        "cnn_bigru"  # cnn_bigru, cnn_bilstm, conformer, or a torchaudio bundle: wav2vec2_base, hubert_base, …
    )
    width: int = Field(default=128, ge=8, multiple_of=8)  # units of a recurrent direction; of the Conformer, channels
    layers: int = Field(default=2, ge=1, le=32)
    channels: int = Field(default=32, ge=4)  # of the convolutions before them
    mels: int = Field(default=64, ge=16, le=128)  # bands of the spectrogram
    subsampling: Literal[2, 4] = 2  # spectrogram frames (10 ms) to one frame of the answer
    heads: int = Field(default=4, ge=1)  # of the Conformer's attention
    dropout: Dropout = 0.0  # between the layers of our own networks
    augment: AudioAugment = AudioAugment(time_mask=0.05)  # shift: silence put before a sound
    decoder: Literal["greedy", "beam"] = "greedy"  # of the evaluation and of /predict; /beam always searches
    beam_width: int = Field(default=8, ge=1, le=128)
    metric: Literal["loss", "word_accuracy"] = "loss"  # on validation: which epoch is kept, when to stop
    compile: bool = False

    @property
    def pretrained(self) -> str | None:
        """torchaudio's, which every bundle has."""
        return None if self.network in BUILTIN_NETWORKS else "pretrained"

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        is_builtin = self.network in BUILTIN_NETWORKS
        if is_builtin and self.weights == "pretrained":
            raise ValueError(
                f"network: {self.network} has no pretrained weights; name a torchaudio bundle or set weights: none"
            )
        if self.network == "conformer" and self.width % (2 * self.heads):
            raise ValueError(f"width ({self.width}) must be a multiple of twice the heads ({self.heads})")
        return self


Data = SpeechData
Train = SpeechTrain
