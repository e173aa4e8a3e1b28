"""What is recorded of each sound, and what is checked over all of them; shared by every kind on sound."""

from typing import TYPE_CHECKING, Any

import numpy as np

from models.common.audio.decoding import open_sound
from models.common.audio.params import AudioData
from models.common.data.drift import batch_drift, drift_expectation
from models.common.errors import BadExampleError
from models.common.kind import Expectation

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

VALUES_BETWEEN = "ExpectColumnValuesToBeBetween"
FULL_SCALE = 32_766 / 32_768  # a sample above it has met the end of its scale
SILENCE_DB = -120.0  # what digital silence is called


def inspect_sound(payload: bytes, data: AudioData) -> dict[str, Any]:
    """AUDIO_COLUMNS of a recording that decodes whole. Raises BadExampleError with the reason."""
    sound = open_sound(payload, data.max_seconds)
    if sound.seconds < data.min_seconds:
        raise BadExampleError(f"{sound.seconds:.3f} s long; at least {data.min_seconds:g} s needed (min_seconds)")
    if not data.min_rate <= sound.rate <= data.max_rate:
        allowed = f"{data.min_rate} to {data.max_rate} Hz (min_rate, max_rate)"
        raise BadExampleError(f"sample rate {sound.rate} Hz; allowed: {allowed}")
    samples, mean = sound.samples, float(sound.samples.mean())
    level = float(np.sqrt(np.mean((samples - mean) ** 2)))
    return {
        "seconds": sound.seconds,
        "rate": sound.rate,
        "channels": sound.channels,
        "level_db": max(SILENCE_DB, 20 * float(np.log10(max(level, 1e-12)))),
        "peak": float(np.abs(samples).max()),
        "clipped": float((np.abs(samples) >= FULL_SCALE).mean()),
        "dc_offset": abs(mean),
    }


def audio_expectations(data: AudioData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Durations, rates, levels, drift, speakers in train and test. Adds the columns that they look at to `manifest`."""
    manifest["duration_drift"] = batch_drift(manifest["batch"], np.log2(manifest["seconds"]).round())
    manifest["speaker_was_trained_on"] = _speaker_in_training(manifest, data.speaker_column)
    return [_durations(data), _rates(data), *_levels(data), _channels(), _drift(data), _speakers(data)]


def _durations(data: AudioData) -> Expectation:
    return Expectation(
        name="recordings are neither too short nor too long",
        expectation=VALUES_BETWEEN,
        kwargs={"column": "seconds", "min_value": data.min_seconds, "max_value": data.max_seconds},
        severity="block",
        remedy=f"a recording does not last min_seconds to max_seconds ({data.min_seconds:g} to {data.max_seconds:g} s);"
        " remove the batch or change those",
    )


def _rates(data: AudioData) -> Expectation:
    return Expectation(
        name="sample rates reach the model's",
        expectation=VALUES_BETWEEN,
        kwargs={"column": "rate", "min_value": data.sample_rate},
        severity="warn",
        remedy=f"a recording under sample_rate ({data.sample_rate} Hz) is brought up to it and lacks the high"
        " frequencies; deliver the original, or set sample_rate lower for all",
    )


def _levels(data: AudioData) -> list[Expectation]:
    return [
        Expectation(
            name="recordings are not silent",
            expectation=VALUES_BETWEEN,
            kwargs={"column": "level_db", "min_value": data.quiet_db},
            severity="warn",
            remedy=f"one under quiet_db ({data.quiet_db:g} dB of full scale) is as good as silent; see whether the"
            " microphone was on",
        ),
        Expectation(
            name="recordings are not clipped",
            expectation=VALUES_BETWEEN,
            kwargs={"column": "clipped", "max_value": data.max_clipped},
            severity="warn",
            remedy=f"over max_clipped ({data.max_clipped:g}) of the samples are at full scale: recorded too loud",
        ),
        Expectation(
            name="recordings have no DC offset",
            expectation=VALUES_BETWEEN,
            kwargs={"column": "dc_offset", "max_value": data.max_dc_offset},
            severity="warn",
            remedy=f"the mean is off zero by over max_dc_offset ({data.max_dc_offset:g} of full scale): a fault of the"
            " sound card",
        ),
    ]


def _channels() -> Expectation:
    return Expectation(
        name="recordings have one or two channels",
        expectation=VALUES_BETWEEN,
        kwargs={"column": "channels", "max_value": 2},
        severity="warn",
        remedy="the mean of all channels is learnt; of a microphone array or surround sound deliver the best channel",
    )


def _drift(data: AudioData) -> Expectation:
    return drift_expectation(
        "durations as before",
        "duration_drift",
        data.max_drift,
        "the spread of durations",
        "see whether it was cut otherwise",
    )


def _speakers(data: AudioData) -> Expectation:
    return Expectation(
        name="test speakers are not in train",
        expectation="ExpectColumnValuesToBeInSet",
        kwargs={"column": "speaker_was_trained_on", "value_set": [False]},
        severity="warn",
        remedy=f"a test or val recording is of a {data.speaker_column} who is in train, too, so its score says nothing"
        f" of unheard ones; data.columns: {{group: {data.speaker_column}}} keeps each in one split",
    )


def _speaker_in_training(manifest: "pd.DataFrame", speaker: str) -> "NDArray[np.bool_]":
    """Per row, whether it is kept from training though its speaker is not. False where no speaker is given."""
    if speaker not in manifest or speaker == "label":
        return np.zeros(len(manifest), bool)
    training = manifest["split"] == "train"
    named = manifest[speaker].fillna("") != ""
    trained_on = set(manifest.loc[training & named, speaker])
    return (~training & named & manifest[speaker].isin(trained_on)).to_numpy(bool)
