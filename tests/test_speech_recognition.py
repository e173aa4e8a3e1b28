"""Speech to text: what is read and refused, and whether network, program, evaluation and service agree."""

import csv
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from models import speech_recognition as kind
from models.common.batches import read_manifest
from models.common.errors import BadExampleError, UserError
from models.common.initial import load_file
from models.common.kind import Example, ReportJob, TrainJob
from models.common.program import Program
from models.common.sources import Source
from models.common.training import alike
from models.speech_recognition import bundles, training
from models.speech_recognition.bundles import Bundle, load_bundle
from models.speech_recognition.learner import delayed, fits, padded
from models.speech_recognition.pages import marked
from models.speech_recognition.params import SpeechData, SpeechTrain
from models.speech_recognition.predictor import Predictor
from models.speech_recognition.training import build
from tests.samples import speech_recognition as sample
from tests.samples.speech import VOICES, noisy, say, write_wav

DATA = SpeechData(sample_rate=8000, max_seconds=10)
SMALL = {"width": 16, "channels": 4, "mels": 24, "layers": 1, "heads": 2}
NETWORKS = [
    {"network": "cnn_bigru"}, {"network": "cnn_bilstm", "layers": 2, "subsampling": 4}, {"network": "conformer"},
]  # fmt: skip
ALPHABET = (" ", "a", "b", "c")


def wav(samples: NDArray[Any], rate: int = 8000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


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
    assert "never in the training split: d" in checks["transcripts have known letters"].means
    limit = checks["transcripts fit their recordings"].kwargs["max_value"]
    assert list(manifest["letters_per_second"] > limit) == [False, False, True]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"weights": "pretrained"}, "no pretrained weights"),
        ({"network": "conformer", "width": 24, "heads": 8}, "multiple of twice the heads"),
        ({"mixup": 0.2}, "mixup does not go with CTC"),
    ],
)
def test_params_that_contradict_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SpeechTrain(**params)
    with pytest.raises(ValueError, match="which no transcript keeps"):
        SpeechData(alphabet="abC")


def voices() -> list[NDArray[np.int16]]:
    """Sounds of lengths that are no multiple of anything, one with a click behind its last whole frame."""
    rng = np.random.default_rng(0)
    sounds = [(rng.normal(0, 3000, size) * np.linspace(0, 1, size)).astype(np.int16) for size in (8001, 12345, 801)]
    click = rng.normal(0, 2, 4070)
    click[-60:] += rng.normal(0, 20_000, 60)
    return [*sounds, np.clip(click, -32768, 32767).astype(np.int16)]


@pytest.mark.parametrize("params", NETWORKS, ids=lambda params: params["network"])
def test_an_answer_does_not_depend_on_the_batch_nor_on_who_gives_it(params: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = SpeechTrain(**{**SMALL, **params})
    model = build(train, DATA, ALPHABET).eval()
    job = TrainJob("m", DATA, train, None, tmp_path, tmp_path, tmp_path, None, {})
    training.write_program(model, job, ALPHABET)
    program, sounds = Program(tmp_path / "program"), voices()
    lengths = torch.tensor([len(sound) for sound in sounds])
    with torch.inference_mode():
        together, counts = model(padded(sounds, np.int16), lengths)
        for sound, answer, count in zip(sounds, together, counts.tolist(), strict=True):
            alone, frames = model(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
            assert frames.tolist() == [count] == [alone.shape[1]]
            torch.testing.assert_close(alone[0], answer[:count], atol=1e-4, rtol=1e-4)
            shipped = program.run(samples=sound[None], lengths=np.array([len(sound)]))
            assert shipped["frames"].tolist() == [count]
            np.testing.assert_allclose(shipped["logits"][0], alone[0].numpy(), atol=1e-4)
    assert training.proven(model, tmp_path / "program", sounds, 3) < 1e-3
    assert np.exp(together[0].numpy()).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_probabilities_are_fp32_also_under_autocast() -> None:
    model = build(SpeechTrain(**SMALL), DATA, ALPHABET)
    with torch.autocast("cpu", torch.bfloat16):
        answer, _ = model(padded(voices(), np.int16), torch.tensor([len(sound) for sound in voices()]))
    assert answer.dtype == torch.float32


def test_letters_that_are_doubled_need_a_frame_between_them() -> None:
    assert fits(np.array([1, 2, 1]), 3)
    assert not fits(np.array([1, 1, 2]), 3)


def test_silence_before_a_sound_cuts_nothing_off() -> None:
    waves, lengths = torch.tensor([[1.0, 2, 3], [4, 5, 0]]).repeat(50, 1), torch.tensor([3, 2]).repeat(50)
    later, longer = delayed(waves, lengths, 4)
    for wave, length, after, now in zip(waves, lengths, later, longer, strict=True):
        assert after[int(now - length) : int(now)].tolist() == wave[: int(length)].tolist()
        assert after.sum() == wave.sum()
    assert set((longer - lengths).tolist()) == {0, 1, 2, 3, 4}


def test_batches_of_one_length_have_every_example_once() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 1000, 333)
    parts = np.array_split(rng.permutation(333), 21)
    arranged = alike(parts, lengths, rng)
    assert sorted(np.concatenate(arranged)) == list(range(333))
    assert sorted(map(len, arranged)) == sorted(map(len, parts))

    def padding(batches: list[NDArray[np.int64]]) -> int:
        return sum(lengths[part].max() * len(part) - lengths[part].sum() for part in batches)

    assert padding(arranged) < padding(parts) / 4
    sizes = [float(lengths[part].mean()) for part in arranged]
    assert sizes != sorted(sizes)


def orders(folder: Path) -> Path:
    """The sample's smallest delivery as a batch, without the command that adds data."""
    delivered = sample.tiny(folder / "delivered")
    rows = []
    with (delivered / "metadata.csv").open() as file:
        for row in csv.DictReader(file):
            payload = (delivered / row["file_name"]).read_bytes()
            digest = hashlib.sha256(payload).hexdigest()
            example = Example(row["file_name"], payload, row["transcript"])
            common = {"id": digest, "file_name": row["file_name"], "label": row["transcript"], "split": row["split"]}
            beside = {"group": digest, "source": "test", "voice": row["voice"], "bytes": payload}
            rows.append({**common, **beside, **kind.inspect(example, DATA)})
    batches = folder / "data" / "orders"
    batches.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, batches / "a.parquet")
    pq.write_table(table.drop_columns(["bytes"]), batches / "a.index")
    md5 = hashlib.md5((batches / "a.parquet").read_bytes()).hexdigest()
    (batches / "a.parquet.dvc").write_text(f"outs:\n- md5: {md5}\n  path: a.parquet\n")
    return batches


def orders_job(root: Path, batches: Path, **train: Any) -> TrainJob:
    params = SpeechTrain(**{**sample.TINY["train"], **train})
    manifest = read_manifest(batches)
    return TrainJob("orders", DATA, params, manifest, batches, root / "artifacts", root / "home", None, {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """A recogniser that has seen a little: it says something, some of it wrong."""
    root = tmp_path_factory.mktemp("orders")
    job = orders_job(root, orders(root), epochs=25, width=32, learning_rate=0.01, warmup_epochs=2, early_stopping=0)
    kind.train(job)
    return job


def test_training_leaves_a_proven_program_with_its_alphabet(trained: TrainJob) -> None:
    summary = json.loads((trained.out / "training" / "summary.json").read_text())
    history = pd.read_csv(trained.out / "training" / "history.csv")
    assert summary["parity_max_abs_diff"] < 1e-3
    assert (summary["parity_examples"], summary["transcripts_too_long"]) == (8, 0)
    assert history["val_loss"].min() < history["val_loss"].iloc[0] / 2
    spec = Program(trained.out / "program").spec
    texts = trained.manifest.loc[trained.manifest["split"] == "train", "label"]
    assert spec.labels == tuple(sorted(set("".join(texts))))
    assert spec.input["frame_seconds"] == 0.02


def test_evaluation_counts_as_jiwer_and_the_service_says_the_same(trained: TrainJob) -> None:
    test = trained.manifest[trained.manifest["split"] == "test"]
    table = kind.score(trained.out / "program", test, trained.batches, trained.home)
    found = kind.summary(table, ())
    references, hypotheses = list(test["label"]), list(table["prediction"])
    assert list(table["transcript"]) == references
    assert found["word_error_rate"] == pytest.approx(jiwer.wer(references, hypotheses))
    assert found["character_error_rate"] == pytest.approx(jiwer.cer(references, hypotheses))
    assert 0 < found["word_error_rate"] < 1.5
    assert any(hypotheses)
    assert list(table["voice"]) == list(test["voice"])
    predictor = Predictor(trained.out / "program")
    for row, payload in zip(table.to_dict("records"), payloads(trained, test), strict=True):
        answer = predictor.predict(**kind.form(payload))
        assert kind.differs(kind.expected(row, ()), answer, 1e-4) == ""
        assert [word["word"] for word in answer["words"]] == answer["text"].split()
        assert all(0 <= word["start"] < word["end"] <= row["seconds"] + 0.02 for word in answer["words"])
        assert [word["start"] for word in answer["words"]] == list(row["starts"])


def payloads(job: TrainJob, rows: pd.DataFrame) -> list[bytes]:
    column = pq.read_table(job.batches / "a.parquet", columns=["bytes"]).column(0).to_pylist()
    return [column[row] for row in rows["row"]]


def test_two_texts_as_good_as_equal_are_not_held_against_a_machine() -> None:
    row = {"prediction": "red", "confidence": 0.5, "margin": 0.0001}
    assert kind.expected(row, ()) == {}
    said = kind.expected({**row, "margin": 0.01}, ())
    assert kind.differs(said, {"text": "rad", "confidence": 0.5}, 1e-3) == "text: rad instead of red"


def test_the_beam_is_at_least_as_probable_as_greedy(trained: TrainJob) -> None:
    predictor = Predictor(trained.out / "program")
    for payload in payloads(trained, trained.manifest.head(10)):
        greedy, beam = predictor.predict(payload), predictor.search(payload)
        words = len(greedy["words"]), len(beam["words"])
        assert beam["confidence"] ** max(1, words[1]) >= greedy["confidence"] ** max(1, words[0]) - 1e-4


@pytest.mark.parametrize("bad", [b"", b"hello", wav(np.zeros(0, np.int16)), wav(np.ones(1, np.int16))])
def test_what_is_no_recording_is_refused_in_one_line(trained: TrainJob, bad: bytes) -> None:
    with pytest.raises(BadExampleError) as caught:
        Predictor(trained.out / "program").predict(bad)
    assert "\n" not in str(caught.value)


def test_the_report_marks_what_went_wrong(trained: TrainJob) -> None:
    table = kind.score(trained.out / "program", trained.manifest, trained.batches, trained.home)
    better = table.assign(edits=0, prediction=table["transcript"])
    job = ReportJob(table, better, (), trained.manifest, trained.batches)
    sections = {section.title: section.html for section in kind.report(job)}
    assert list(sections) == ["Words that go wrong", "Errors by length", "Worst transcripts"]
    worst = sections["Worst transcripts"]
    assert worst.count("<audio") == min(12, int((table["edits"] > 0).sum()))
    assert worst.count("<img") == worst.count("<audio")
    assert "<del>" in worst or "<ins>" in worst
    assert "<span class=tag>new</span>" in worst
    assert "<th class=n>champion</th>" in sections["Errors by length"]
    assert marked("one <two> three", "one too three four") == (
        "one <del>&lt;two&gt;</del> <ins>too</ins> three <ins>four</ins>"
    )


def test_a_new_letter_leaves_what_was_learnt_of_the_others(trained: TrainJob) -> None:
    old = Program(trained.out / "program").spec.labels
    new = tuple(sorted({*old, "z", "!"}))
    model = build(trained.train, DATA, new)
    weights = trained.out / "training" / "weights.pt"
    load_file(model.network, [model.network.head], trained.train.network, ("", *new), weights)
    saved = torch.load(weights, weights_only=True)["state"]["head.weight"]
    for place, letter in enumerate(("", *old)):
        torch.testing.assert_close(model.network.head.weight[("", *new).index(letter)], saved[place])


def test_transcripts_longer_than_their_recordings_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batches = orders(tmp_path)
    job = orders_job(tmp_path, batches)
    first = job.manifest.index[job.manifest["split"] == "train"][0]
    job.manifest.loc[first, "label"] = "red blue " * 60
    kind.train(job)
    assert "1 of 40 training transcripts are too long" in capsys.readouterr().err
    assert json.loads((job.out / "training" / "summary.json").read_text())["transcripts_too_long"] == 1
    job.manifest["label"] = "red blue " * 60
    with pytest.raises(UserError, match="40 of 40 training transcripts have more letters"):
        kind.train(job)
    with pytest.raises(UserError, match="validation split is empty"):
        kind.train(dataclasses.replace(job, manifest=job.manifest[job.manifest["split"] != "val"]))


def small_bundle(name: str, **further: Any) -> Any:
    """torchaudio's bundle with a network of a few thousand weights."""
    bundle = bundles.find_bundle(name)
    layers = [(16, 10, 5), (16, 8, 8), (16, 4, 4), (16, 2, 2)]
    small = {
        "extractor_conv_layer_config": layers, "encoder_embed_dim": 32, "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 4, "encoder_num_layers": 2, "encoder_num_heads": 4, "encoder_ff_interm_features": 32,
    }  # fmt: skip
    return dataclasses.replace(bundle, _params={**bundle._params, **small, **further})


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_BASE_10M", "HUBERT_LARGE"])
def test_a_bundle_hears_each_clip_by_itself_and_is_exported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = small_bundle(name)
    monkeypatch.setattr(bundles, "find_bundle", lambda _: bundle)
    data = SpeechData()
    train = SpeechTrain(network=name)
    model = build(train, data, ALPHABET).eval()
    sounds = voices()
    with torch.inference_mode():
        together, counts = model(padded(sounds, np.int16), torch.tensor([len(sound) for sound in sounds]))
        alone, _ = model(torch.from_numpy(sounds[1])[None], torch.tensor([len(sounds[1])]))
    torch.testing.assert_close(together[1, : counts[1]], alone[0])
    job = TrainJob("m", data, train, None, tmp_path, tmp_path, tmp_path, None, {})
    training.write_program(model, job, ALPHABET)
    assert training.proven(model, tmp_path / "program", sounds, 1) < 1e-3
    _, frames = model.train()(padded(sounds, np.int16), torch.tensor([len(sound) for sound in sounds]))
    assert frames.tolist() == counts.tolist()


def test_a_bundles_weights_come_from_torchaudio_or_the_user_is_told_which_file_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = small_bundle("WAV2VEC2_ASR_BASE_10M")
    monkeypatch.setattr(bundles, "find_bundle", lambda _: bundle)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    network = Bundle("any", 5, 16_000)
    place = tmp_path / "checkpoints" / bundle._path
    with pytest.raises(UserError, match=f"put torchaudio's {bundle._path} at {place}"):
        load_bundle(network, "any", ("", *ALPHABET))
    from torchaudio.models import wav2vec2_model

    theirs = wav2vec2_model(**{**bundle._params, "aux_num_out": 32}).state_dict()  # 3 of them torchaudio takes out
    place.parent.mkdir(exist_ok=True)
    torch.save(theirs, place)
    load_bundle(network, "any", ("", *ALPHABET))
    kept = [row for row in range(32) if row not in (1, 2, 3)]
    of_a = kept[bundle.get_labels().index("A")]
    torch.testing.assert_close(network.head.weight[2], theirs["aux.weight"][of_a])
    torch.testing.assert_close(network.model.state_dict()["encoder.feature_projection.projection.weight"],
                               theirs["encoder.feature_projection.projection.weight"])  # fmt: skip


def test_an_unknown_network_is_told_with_those_near_it() -> None:
    with pytest.raises(UserError, match=r"Unknown network 'WAV2VEC_BASE'\. Did you mean: WAV2VEC2_BASE"):
        build(SpeechTrain(network="WAV2VEC_BASE"), SpeechData(), ALPHABET)
    with pytest.raises(UserError, match="hears 16000 Hz, not 8000"):
        build(SpeechTrain(network="WAV2VEC2_BASE"), DATA, ALPHABET)
