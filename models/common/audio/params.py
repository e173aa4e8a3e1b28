"""Params that every kind on sound shares: which recordings are taken, and how they are varied in training."""

from typing import Self

from pydantic import Field, model_validator

from models.common.params import DataParams, Section, Share

# Recorded of each sound in a batch: column -> pyarrow type
AUDIO_COLUMNS = {
    "seconds": "float64",
    "rate": "int32",  # Hz, as delivered
    "channels": "int16",
    "level_db": "float32",  # root mean square, dB of full scale; digital silence is -120
    "peak": "float32",  # of full scale
    "clipped": "float32",  # share of samples at full scale
    "dc_offset": "float32",  # |mean|, of full scale
}


class AudioData(DataParams):
    """The `data` section: at which rate sound is learnt, what is quarantined, what is warned of."""

    sample_rate: int = Field(default=16_000, ge=4_000, le=48_000)  # Hz: what the program takes; telephone: 8000
    min_seconds: float = Field(default=0.05, ge=0.01)  # shorter recordings are quarantined
    max_seconds: float = Field(default=30.0, gt=0, le=3600)  # longer ones are quarantined, unread
    min_rate: int = Field(default=4_000, ge=4_000)  # Hz, as delivered; recordings beyond are quarantined
    max_rate: int = Field(default=192_000, le=192_000)
    quiet_db: float = Field(default=-60.0, ge=-120, lt=0)  # dB of full scale; quieter recordings are warned of
    max_clipped: Share = 0.01  # share of samples at full scale; more is warned of
    max_dc_offset: Share = 0.05  # of full scale; more is warned of
    speaker_column: str = "speaker"  # of the metadata, where there is one: who speaks

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.min_seconds >= self.max_seconds:
            raise ValueError(f"min_seconds ({self.min_seconds}) must be below max_seconds ({self.max_seconds})")
        if self.min_rate > self.max_rate:
            raise ValueError(f"min_rate ({self.min_rate}) must not be above max_rate ({self.max_rate})")
        return self


class AudioAugment(Section):
    """Random changes to training sounds, applied to a whole batch at once on the device. 0: off."""

    shift: float = Field(default=0.1, ge=0, le=10)  # seconds, either way
    speed: float = Field(default=0.1, ge=0, lt=0.5)  # faster or slower by up to this share; pitch moves along
    gain_db: float = Field(default=6.0, ge=0, le=40)  # louder or softer by up to this
    noise: Share = 0.5  # share of the sounds that get noise
    noise_snr_db: tuple[float, float] = (10.0, 40.0)  # signal to noise, from .. to
    filter_db: float = Field(default=10.0, ge=0, le=40)  # each band louder or softer by up to this: other microphones
    time_masks: int = Field(default=1, ge=0, le=20)  # SpecAugment: stretches of time blanked in the spectrogram
    time_mask: Share = 0.15  # the longest, as a share of the sound
    frequency_masks: int = Field(default=1, ge=0, le=20)
    frequency_mask: Share = 0.15  # the widest, as a share of the mel bands

    @model_validator(mode="after")
    def _check_snr_range(self) -> Self:
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError(f"noise_snr_db {list(self.noise_snr_db)} must rise")
        return self
