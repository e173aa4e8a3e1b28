"""Speech to text: whether network, program, evaluation and service agree, and what training leaves and tells."""

import csv
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import jiwer
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from models.common.data.batches import read_manifest
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example, ReportJob, ScoreJob, TrainJob, load_kind
from models.common.program.program import Program
from models.common.training.loop import bucket_by_length
from models.common.training.weights import load_weights
from models.speech_recognition import training
from models.speech_recognition.learner import delayed
from models.speech_recognition.networks import build
from models.speech_recognition.params import SpeechData, SpeechTrain
from models.speech_recognition.predictor import Predictor
from models.speech_recognition.preprocessing import ProgramInput
from models.speech_recognition.report import mark_edits
from tasks.evaluate import evaluate
from tasks.package import package
from tasks.serve import free_port, running, unpack
from tests.hearing import ALPHABET, DATA, tensors, voices, wav
from tests.samples import speech_recognition as sample

Job = TrainJob[SpeechData, SpeechTrain]
kind = load_kind("speech_recognition")
SMALL: dict[str, Any] = {"width": 16, "channels": 4, "mels": 24, "layers": 1, "heads": 2}
NETWORKS = [
    {"network": "cnn_bigru"}, {"network": "cnn_bilstm", "layers": 2, "subsampling": 4}, {"network": "conformer"},
]  # fmt: skip


@pytest.mark.parametrize("params", NETWORKS, ids=lambda params: params["network"])
def test_an_answer_does_not_depend_on_the_batch_nor_on_who_gives_it(params: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = SpeechTrain(**{**SMALL, **params})
    model = build(train, DATA.sample_rate, ALPHABET).eval()
    job = TrainJob("m", DATA, train, None, tmp_path, tmp_path, tmp_path, None, {})  # type: ignore[arg-type]
    training.write_program(model, job, ALPHABET)
    program, sounds = Program(tmp_path / "program"), voices()
    with torch.inference_mode():
        together, counts = model(*tensors(sounds))
        for sound, answer, count in zip(sounds, together, counts.tolist(), strict=True):
            alone, frames = model(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
            assert frames.tolist() == [count] == [alone.shape[1]]
            torch.testing.assert_close(alone[0], answer[:count], atol=1e-4, rtol=1e-4)
            shipped = program.run(samples=sound[None], lengths=np.array([len(sound)]))
            assert shipped["frames"].tolist() == [count]
            np.testing.assert_allclose(shipped["logits"][0], alone[0].numpy(), atol=1e-4)
    assert training.parity(model, tmp_path / "program", sounds, 3) < 1e-3
    assert np.exp(together[0].numpy()).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_probabilities_are_fp32_also_under_autocast() -> None:
    model = build(SpeechTrain(**SMALL), DATA.sample_rate, ALPHABET)
    with torch.autocast("cpu", torch.bfloat16):
        answer, _ = model(*tensors(voices()))
    assert answer.dtype == torch.float32


def test_a_program_of_before_that_calls_its_batch_size_together_is_still_read(tmp_path: Path) -> None:
    settings = vars(ProgramInput(8000, 20.0, 0.02, 16, "greedy", 8, True, "."))
    before = {"together" if name == "batch_size" else name: value for name, value in settings.items()}
    assert ProgramInput.of(before, tmp_path) == ProgramInput.of(settings, tmp_path) == ProgramInput(**settings)


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
    arranged = bucket_by_length(parts, lengths, rng)
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


def orders_job(root: Path, batches: Path, **train: Any) -> Job:
    params = SpeechTrain(**{**sample.TINY["train"], **train})
    manifest = read_manifest(batches)
    return TrainJob(
        "orders", DATA, params, manifest, batches, root / "artifacts" / "orders", root / ".ratchet", None, {}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A recogniser that has seen a little: it says something, some of it wrong."""
    root = tmp_path_factory.mktemp("orders")
    job = orders_job(root, orders(root), epochs=25, width=32, learning_rate=0.01, warmup_epochs=2, beam_width=64)
    kind.train(job)
    return job


def test_training_leaves_a_proven_program_with_its_alphabet(trained: Job) -> None:
    summary = json.loads((trained.out / "training" / "summary.json").read_text())
    history = pd.read_csv(trained.out / "training" / "history.csv")
    assert summary["parity_max_abs_diff"] < 1e-3
    assert (summary["parity_examples"], summary["transcripts_too_long"]) == (8, 0)
    assert history["val_loss"].min() < history["val_loss"].iloc[0] / 2
    spec = Program(trained.out / "program").spec
    texts = trained.manifest.loc[trained.manifest["split"] == "train", "label"]
    assert spec.labels == tuple(sorted(set("".join(texts))))
    assert spec.input["frame_seconds"] == 0.02


def test_evaluation_counts_as_jiwer_and_the_service_says_the_same(trained: Job) -> None:
    test = trained.manifest[trained.manifest["split"] == "test"]
    table = kind.score(ScoreJob(trained.out / "program", test, trained.batches, trained.home))
    found = kind.summary(table, ())
    references, hypotheses = list(test["label"]), list(table["prediction"])
    assert list(table["transcript"]) == references
    assert found["word_error_rate"] == pytest.approx(jiwer.wer(references, hypotheses))
    assert found["character_error_rate"] == pytest.approx(jiwer.cer(references, hypotheses))
    assert 0 < found["word_error_rate"] < 1.5
    assert any(hypotheses)
    assert list(table["voice"]) == list(test["voice"])
    predictor = Predictor(trained.out / "program")
    records: list[Any] = table.to_dict("records")
    for row, payload in zip(records, payloads(trained, test), strict=True):
        answer = predictor.predict(**kind.SERVICE.form(payload))
        assert kind.SERVICE.differs(kind.SERVICE.expected(row, ()), answer, 1e-4) == ""
        assert [word["word"] for word in answer["words"]] == answer["text"].split()
        assert all(0 <= word["start"] < word["end"] <= row["seconds"] + 0.02 for word in answer["words"])
        assert [word["start"] for word in answer["words"]] == list(row["starts"])


def payloads(job: Job, rows: pd.DataFrame) -> list[bytes]:
    column = pq.read_table(job.batches / "a.parquet", columns=["bytes"]).column(0).to_pylist()
    return [column[row] for row in rows["row"]]


def test_the_served_beam_says_what_the_predictor_says(trained: Job, tmp_path: Path) -> None:
    root = trained.home.parent
    params = {"kind": "speech_recognition", "data": {"sample_rate": 8000, "max_seconds": 10}, "train": {}}
    params["gate"] = {"metric": "word_error_rate"}
    (root / "params.yaml").write_text(json.dumps({"models": {"orders": params}}))
    evaluate(root, "orders")
    bento, port = unpack(package(root, "orders", "v1.0.0").bento, tmp_path / "bento"), free_port()
    (payload,) = payloads(trained, trained.manifest.tail(1))
    logged = {"RATCHET_PREDICTION_LOG": str(tmp_path / "logged")}
    with running(bento, "127.0.0.1", port, tmp_path / "log", logged):
        replies = [
            httpx.post(f"http://127.0.0.1:{port}{page}", files={"audio": payload}, timeout=30)
            for page in ("/predict", "/beam")
        ]
        bad = httpx.post(f"http://127.0.0.1:{port}/beam", files={"audio": b"no sound"}, timeout=30)
    predictor = Predictor(trained.out / "program")
    for reply, said in zip(replies, (predictor.predict(payload), predictor.beam(payload)), strict=True):
        assert reply.json() == said | {"model": "orders", "version": "v1.0.0"}
    assert bad.status_code == 400
    assert "not a sound" in bad.json()["error"]
    (log,) = (tmp_path / "logged").rglob("*.jsonl")
    assert len(log.read_text().splitlines()) == 2  # each answer once


def test_two_texts_as_good_as_equal_are_not_held_against_a_machine() -> None:
    row = {"prediction": "red", "confidence": 0.5, "margin": 0.0001}
    assert kind.SERVICE.expected(row, ()) == {}
    said = kind.SERVICE.expected({**row, "margin": 0.01}, ())
    assert kind.SERVICE.differs(said, {"text": "rad", "confidence": 0.5}, 1e-3) == "text: rad instead of red"


def test_the_beam_is_at_least_as_probable_as_greedy(trained: Job) -> None:
    predictor = Predictor(trained.out / "program")
    for payload in payloads(trained, trained.manifest.head(10)):
        greedy, beam = predictor.predict(payload), predictor.beam(payload)
        words = len(greedy["words"]), len(beam["words"])
        assert beam["confidence"] ** max(1, words[1]) >= greedy["confidence"] ** max(1, words[0]) - 1e-4


@pytest.mark.parametrize("bad", [b"", b"hello", wav(np.zeros(0, np.int16)), wav(np.ones(1, np.int16))])
def test_what_is_no_recording_is_refused_in_one_line(trained: Job, bad: bytes) -> None:
    with pytest.raises(BadExampleError) as caught:
        Predictor(trained.out / "program").predict(bad)
    assert "\n" not in str(caught.value)


def test_the_report_marks_what_went_wrong(trained: Job) -> None:
    table = kind.score(ScoreJob(trained.out / "program", trained.manifest, trained.batches, trained.home))
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
    assert mark_edits("one <two> three", "one too three four") == (
        "one <del>&lt;two&gt;</del> <ins>too</ins> three <ins>four</ins>"
    )


def test_a_new_letter_leaves_what_was_learnt_of_the_others(trained: Job) -> None:
    old = Program(trained.out / "program").spec.labels
    new = tuple(sorted({*old, "z", "!"}))
    model = build(trained.train, DATA.sample_rate, new)
    weights = trained.out / "training" / "weights.pt"
    load_weights(model.network, [model.network.head], trained.train.network, ("", *new), weights)
    saved = torch.load(weights, weights_only=True)["state"]["head.weight"]
    for index, letter in enumerate(("", *old)):
        torch.testing.assert_close(model.network.head.weight[("", *new).index(letter)], saved[index])


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
