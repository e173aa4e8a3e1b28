"""Speech made on the spot, and transcripts with recordings as people deliver them: what is read, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example, load_kind
from models.speech_recognition.params import SpeechData, SpeechTrain
from tests.hearing import DATA, wav
from tests.samples.speech import VOICES, noisy, say, write_wav

kind = load_kind("speech_recognition")


def test_made_speech_is_the_same_twice_whatever_was_said_between() -> None:
    first, rate = say("three one four")
    others = [say("three one four", voice)[0] for voice in ("en-gb", "en-us+f3", "en+m4")]
    again, _ = say("three one four")
    assert rate == 22050
    np.testing.assert_array_equal(first, again)
    assert len({samples.tobytes() for samples in [first, say("two seven")[0], *others]}) == 5


@pytest.mark.parametrize("voice", VOICES)
def test_every_voice_is_heard(voice: str) -> None:
    samples, rate = say("hello", voice, speed=160, pitch=40)
    assert 0.3 < len(samples) / rate < 2
    assert np.abs(samples).max() > 3000


def test_noise_has_the_power_that_was_asked_for() -> None:
    samples, _ = say("hello")
    noise = noisy(samples // 4, 10, seed=0).astype(float) - samples // 4
    measured = 10 * np.log10(np.mean((samples // 4).astype(float) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(10, abs=0.2)


def librispeech(folder: Path) -> Path:
    samples, rate = say("hello")
    for split, speaker in (("train-clean-100", "103"), ("dev-clean", "84"), ("test-other", "367")):
        chapter = folder / "LibriSpeech" / split / speaker / "1240"
        chapter.mkdir(parents=True)
        for number in range(2):
            soundfile.write(chapter / f"{speaker}-1240-000{number}.flac", samples[number:], rate)
        lines = [f"{speaker}-1240-0000 HELLO THERE", f"{speaker}-1240-0001 HELLO"]
        (chapter / f"{speaker}-1240.trans.txt").write_text("\n".join(lines) + "\n")
    (folder / "LibriSpeech" / "README.TXT").write_text("about")
    return folder


def test_librispeech_is_read_as_it_is_delivered(tmp_path: Path) -> None:
    source = Source(librispeech(tmp_path))
    found = {example.file_name.rsplit("/", 1)[-1]: example for example in kind.examples(source, DATA)}
    assert len(found) == 6
    assert not source.rejected
    one = found["84-1240-0000.flac"]
    assert (one.label, one.split, one.group, one.extra) == ("HELLO THERE", "val", "84", {"speaker": "84"})
    assert {example.split for example in found.values()} == {"train", "val", "test"}
    assert kind.inspect(one, DATA)["seconds"] > 0.3


def test_recordings_and_transcripts_without_each_other_are_told(tmp_path: Path) -> None:
    folder = librispeech(tmp_path) / "LibriSpeech" / "dev-clean" / "84" / "1240"
    (folder / "84-1240.trans.txt").write_text("84-1240-0000 HELLO\n84-1240-0007 GONE\n")
    source = Source(tmp_path)
    assert len(list(kind.examples(source, DATA))) == 5
    assert dict(source.rejected) == {
        "LibriSpeech/dev-clean/84/1240/84-1240-0007": "has a transcript, but there is no such recording",
        "LibriSpeech/dev-clean/84/1240/84-1240-0001.flac": "no line of a .trans.txt file has its transcript",
    }


def test_metadata_needs_a_transcript_and_may_call_it_otherwise(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", *say("hello"))
    (tmp_path / "metadata.csv").write_text("file_name,sentence\na.wav,Hello!\n")
    with pytest.raises(UserError, match=r"no column transcript; it has: file_name, sentence"):
        list(kind.examples(Source(tmp_path), DATA))
    (example,) = kind.examples(Source(tmp_path), SpeechData(columns={"label": "sentence"}))
    assert example.label == "Hello!"


@pytest.mark.parametrize(
    ("transcript", "data", "reason"),
    [
        ("...", DATA, "its transcript has no letter"),
        ("na\u00efve", SpeechData(alphabet="abcnve"), "letter 'ï' of 'naïve' is not in data.alphabet (abcnve)"),
    ],
)
def test_a_transcript_that_cannot_be_learnt_is_refused_in_one_line(
    transcript: str, data: SpeechData, reason: str
) -> None:
    with pytest.raises(BadExampleError) as caught:
        kind.inspect(Example("a.wav", wav(say("hello")[0]), transcript), data)
    assert str(caught.value) == reason


def test_letters_that_training_never_had_are_told() -> None:
    rows = {"label": ["Abc", "a b!", "abd"], "split": ["train", "val", "test"], "seconds": [1.0, 1.0, 0.01]}
    beside = {"batch": "a", "rate": 8000, "channels": 1, "level_db": -20.0, "clipped": 0.0, "dc_offset": 0.0}
    manifest = pd.DataFrame({**rows, **{key: [value] * 3 for key, value in beside.items()}})
    checks = {check.name: check for check in kind.expectations(DATA, manifest)}
    assert list(manifest["unknown_letters"]) == ["", "", "d"]
    assert "never in the training split: d" in checks["transcripts have known letters"].remedy
    limit = checks["transcripts fit their recordings"].kwargs["max_value"]
    assert list(manifest["letters_per_second"] > limit) == [False, False, True]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"weights": "pretrained"}, "no pretrained weights"),
        ({"network": "conformer", "width": 24, "heads": 8}, "multiple of twice the heads"),
    ],
)
def test_params_that_contradict_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SpeechTrain(**params)
    with pytest.raises(ValueError, match="which no transcript keeps"):
        SpeechData(alphabet="abC")


@pytest.mark.parametrize("key", ["mixup", "label_smoothing", "channels_last"])
def test_a_key_of_another_kind_is_refused_as_unknown(key: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){key}.*Extra inputs are not permitted"):
        SpeechTrain(**{key: 0})  # type: ignore[arg-type]
