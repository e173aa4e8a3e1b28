"""Sound from bytes to features: every way a file can be bad, and features beside torchaudio's own."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray

from models.common.audio.augmentation import (
    add_noise,
    augment_waveform,
    random_filter,
    random_gain,
    random_shift_speed,
    random_speed,
    spec_augment,
)
from models.common.audio.checks import audio_expectations, inspect_sound
from models.common.audio.decoding import as_int16, pad_or_trim, read_sound
from models.common.audio.mel import MIN_POWER, SCALE, LogMel
from models.common.audio.params import AUDIO_COLUMNS, AudioAugment, AudioData
from models.common.errors import BadExampleError
from models.common.reporting.audio import sound_card

RATE = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def wav(samples: NDArray[Any], rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=format, subtype=subtype)
    return out.getvalue()


def refused(payload: bytes) -> str:
    with pytest.raises(BadExampleError) as caught:
        read_sound(payload, RATE, 30)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_sample(value: float) -> NDArray[np.float32]:
    samples = TONE.copy()
    samples[5] = value
    return samples


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "empty file (0 bytes)"),
        (wav(TONE[:0]), "no sound: a header without samples"),
        (wav(TONE[:1]), "at least 0.01 s needed"),
        (wav(np.zeros(3600 * 8000), 8000), "3600.0 s long; at most 30 s are read (max_seconds)"),
        (wav(np.zeros(3600 * 8000), 8000, "FLAC"), "3600.0 s long; at most 30 s"),
        (wav(with_sample(np.nan), subtype="FLOAT"), "NaN or infinite"),
        (wav(with_sample(-np.inf), subtype="FLOAT"), "NaN or infinite"),
        (wav(with_sample(30_000), subtype="FLOAT"), "samples up to 30000; floating-point sound lies within -1 and 1"),
        (wav(TONE, 1), "sample rate 1 Hz; 4000 to 192000 Hz are read"),
        (wav(TONE, 768_000), "sample rate 768000 Hz"),
        (wav(np.stack([TONE] * 9, 1)), "9 channels; up to 8 are mixed to one"),
        (wav(TONE)[:10_000], "truncated: 9956 of 32000 bytes of sound are there"),
        (wav(TONE, format="FLAC")[:5_000], "damaged sound"),
        (wav(TONE, format="AIFF")[:5_000], "truncated"),
        (wav(TONE, format="MP3")[:1_000], "truncated"),
        (wav(TONE, format="OGG")[:3_000], "damaged sound"),
        (b"hello, I am a text\n" * 100, "not a sound (WAV, FLAC, MP3"),
        (wav(TONE, format="MAT5"), "a MAT5 file; WAV, FLAC"),
    ],
)
def test_what_is_no_usable_sound_is_refused_in_one_line(payload: bytes, said: str) -> None:
    assert said in refused(payload)


@pytest.mark.parametrize(
    ("format", "subtype", "apart"),
    [
        ("WAV", "PCM_16", 0), ("WAV", "PCM_U8", 256), ("WAV", "PCM_24", 1), ("WAV", "PCM_32", 1), ("WAV", "FLOAT", 1),
        ("WAV", "ULAW", 700), ("WAV", "ALAW", 700), ("FLAC", None, 0), ("AIFF", None, 0), ("AU", None, 0),
        ("CAF", None, 0), ("NIST", None, 0), ("OGG", "VORBIS", 2500), ("MP3", None, 2500),
    ],
)  # fmt: skip
def test_every_usual_encoding_gives_the_same_samples(format: str, subtype: str | None, apart: int) -> None:
    truth = as_int16(TONE)
    given = truth if apart == 0 else TONE
    found = read_sound(wav(given, format=format, subtype=subtype), RATE, 30)
    middle = slice(2000, -2000)  # lossy codecs fade in and out
    assert found.dtype == np.int16
    assert len(found) == RATE
    assert np.abs(found.astype(int) - truth)[middle].max() <= apart


def test_channels_are_averaged_and_another_rate_is_resampled() -> None:
    five = np.stack([TONE, TONE, -TONE, 0 * TONE, 0 * TONE], 1)
    found = read_sound(wav(five, subtype="FLOAT"), RATE, 30).astype(int)
    assert np.abs(found - as_int16(TONE / np.float32(5))).max() <= 1
    low = wav(TONE[::2], 8_000)
    found = read_sound(low, RATE, 30).astype(int)
    assert np.abs(found - as_int16(TONE))[500:-500].max() < 60


def test_a_header_written_to_a_pipe_is_no_truncated_file() -> None:
    payload = bytearray(wav(TONE))
    payload[4:8] = payload[40:44] = b"\xff\xff\xff\xff"
    assert len(read_sound(bytes(payload), RATE, 30)) == RATE


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_damaged_bytes_never_raise_anything_else(format: str) -> None:
    rng, whole = np.random.default_rng(0), wav(TONE[:4000], format=format)
    for _ in range(60):
        payload = bytearray(whole)
        for index in rng.integers(0, min(len(payload), rng.choice([60, 4000])), rng.integers(1, 20)):
            payload[index] = rng.integers(256)
        with contextlib.suppress(BadExampleError):
            assert read_sound(bytes(payload), RATE, 5).dtype == np.int16


def test_a_clip_is_padded_on_both_sides_or_cut_around_the_most_energy() -> None:
    short = np.arange(1, 4, dtype=np.int16)
    assert pad_or_trim(short, 6).tolist() == [0, 1, 2, 3, 0, 0]
    long = np.zeros(100, np.int16)
    long[60:65] = -30_000
    assert (pad_or_trim(long, 10) != 0).sum() == 5
    assert pad_or_trim(long, 100) is not None
    assert len(pad_or_trim(long, 100)) == 100


def test_what_is_recorded_of_a_sound() -> None:
    loud = np.clip(4 * TONE, -1, 1)
    found = inspect_sound(wav(np.stack([loud, loud], 1)), AudioData())
    assert set(found) == set(AUDIO_COLUMNS)
    assert (found["seconds"], found["rate"], found["channels"]) == (1.0, RATE, 2)
    assert found["clipped"] == pytest.approx(2 / 3, abs=0.01)
    assert inspect_sound(wav(TONE), AudioData())["level_db"] == pytest.approx(-9.03, abs=0.01)
    assert inspect_sound(wav(TONE + 0.3), AudioData())["dc_offset"] == pytest.approx(0.3, abs=1e-3)
    assert inspect_sound(wav(0 * TONE), AudioData())["level_db"] == -120


@pytest.mark.parametrize(
    ("data", "said"),
    [({"min_seconds": 2}, "at least 2 s needed (min_seconds)"), ({"min_rate": 22_050}, "allowed: 22050 to 192000 Hz")],
)
def test_params_narrow_what_is_taken(data: dict[str, Any], said: str) -> None:
    with pytest.raises(BadExampleError, match=said.replace("(", r"\(").replace(")", r"\)")):
        inspect_sound(wav(TONE), AudioData(**data))


def test_a_speaker_in_train_and_test_is_found() -> None:
    good = inspect_sound(wav(TONE), AudioData())
    rows = [
        {**good, "batch": "a", "split": split, "speaker": speaker}
        for split, speaker in [("train", "ann"), ("test", "ann"), ("test", "bob"), ("val", None), ("train", None)]
    ]
    manifest = pd.DataFrame(rows)
    found = {each.name: each for each in audio_expectations(AudioData(), manifest)}
    assert manifest["speaker_was_trained_on"].tolist() == [False, True, False, False, False]
    leak = found["test speakers are not in train"]
    assert leak.severity == "warn"
    assert "{group: speaker}" in leak.remedy
    assert found["recordings are neither too short nor too long"].severity == "block"


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_log_mel_is_what_torchaudio_computes(rate: int) -> None:
    mel = LogMel(rate, 40)
    size = 2 ** math.ceil(math.log2(mel.window))
    theirs = torchaudio.transforms.MelSpectrogram(
        rate, size, mel.window, mel.hop, f_min=20, n_mels=40, center=False
    )  # fmt: skip
    sounds = 0.1 * torch.randn(3, rate, generator=torch.Generator().manual_seed(0))
    left = (mel.window - mel.hop) // 2 + (size - mel.window) // 2
    expected = theirs(torch.nn.functional.pad(sounds, (left, size)))[..., : rate // mel.hop]
    torch.testing.assert_close(mel.spectrogram(sounds), expected.clamp(min=MIN_POWER).log(), atol=1e-4, rtol=1e-4)


def test_log_mel_ignores_padding_and_loudness() -> None:
    mel = LogMel(8_000, 20)
    sound = torch.from_numpy(as_int16(0.3 * TONE[:4000]))[None]
    padded = torch.nn.functional.pad(sound, (0, 4000))
    alone, among = mel(sound, torch.tensor([4000])), mel(padded, torch.tensor([4000]))
    torch.testing.assert_close(among[..., :49], alone[..., :49], atol=1e-4, rtol=1e-4)
    assert not among[..., 50:].any()
    noise = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mel(noise / 4), mel(noise), atol=1e-3, rtol=1e-3)


def test_augmentation_does_what_it_says() -> None:
    torch.manual_seed(0)
    waves = torch.randn(64, 4000)
    assert torch.equal(random_shift_speed(waves, 0, 0), waves)
    change = (random_gain(waves, 6) / waves).abs().log10()[:, 0] * 20
    assert -6 <= change.min() < -4
    assert 4 < change.max() <= 6
    noise = add_noise(waves, 1.0, (10, 10)) - waves
    snr = 10 * torch.log10(waves.square().mean(1) / noise.square().mean(1))
    torch.testing.assert_close(snr, torch.full((64,), 10.0), atol=1e-3, rtol=0)
    assert (add_noise(waves, 0.5, (10, 10)) != waves).any(1).float().mean() == pytest.approx(0.5, abs=0.2)
    after = random_speed(waves, torch.full((64,), 4000), 0.2)[1]
    assert 3300 < after.min() < after.max() < 5050


def test_a_moved_sound_is_the_same_sound_elsewhere() -> None:
    torch.manual_seed(0)
    pulse = torch.zeros(200, 1001)
    pulse[:, 500] = 1
    places = random_shift_speed(pulse, 100, 0).argmax(1)
    assert 400 <= places.min() < 420
    assert 580 < places.max() <= 600
    slope = torch.arange(1001.0)[None].repeat(50, 1)
    steps = random_shift_speed(slope, 0, 0.2)[:, 400:600].diff(dim=1).mean(1)
    assert 0.8 <= steps.min() < 0.85
    assert 1.15 < steps.max() <= 1.2


def test_masks_hide_stretches_of_time_and_of_frequency() -> None:
    torch.manual_seed(0)
    augment = AudioAugment(time_masks=1, time_mask=0.5, frequency_masks=0)
    hidden = spec_augment(torch.ones(100, 20, 50), augment) == 0
    assert (hidden.all(1) == hidden.any(1)).all()
    assert 0.2 < hidden.float().mean() < 0.3
    sounds = torch.from_numpy(as_int16(TONE))[None].repeat(4, 1)
    assert augment_waveform(sounds, AudioAugment(), RATE).shape == sounds.shape


def test_a_random_filter_is_one_smooth_curve_over_the_bands_of_each_sound() -> None:
    torch.manual_seed(0)
    spectrograms = torch.randn(200, 40, 30)
    change = random_filter(spectrograms, 10) - spectrograms
    curves = change[:, :, 0] * SCALE / (math.log(10) / 10)  # dB
    assert torch.allclose(change, change[:, :, :1].expand_as(change), atol=1e-5)  # the same all along
    assert 9 < float(curves.abs().max()) <= 10 + 1e-3
    assert 4.5 < float(curves.std()) < 5
    assert float(curves.diff(dim=1).abs().max()) < 20 * 5 / 39 + 1e-3  # five straight lines over 40 bands
    assert not torch.equal(curves[0], curves[1])
    assert random_filter(spectrograms, 0) is spectrograms


def test_a_report_shows_and_plays_a_sound() -> None:
    card = sound_card(wav(TONE, 44_100), "<b>la</b>", 'a "file"')
    assert card.count("data:image/png;base64,") == card.count("data:audio/mpeg;base64,") == 1
    assert "&quot;file&quot;" in card
