"""Spoken commands from a delivery to an answer: every network, its program, its service's predictor, its weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from models.common.audio import bundles
from models.common.data.batches import read_payloads
from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import AnyTrainJob, ReportJob, ScoreJob, load_kind
from models.common.program.program import ProgramSpec
from models.speech_command.networks import MelNetwork, build
from models.speech_command.params import CommandData, CommandTrain
from models.speech_command.predictor import Predictor
from tests import delivered
from tests.bundles import keep_weights, shrink
from tests.samples import speech_command as sample

KIND = load_kind("speech_command")
DATA = CommandData(**sample.TINY["data"])
TRAIN = sample.TINY["train"]
FSDD = Path(__file__).resolve().parents[2] / "shared/data/fsdd"


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("orders")
    return delivered.write_batches(folder, KIND, DATA, sample.tiny(folder / "delivery"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, batches: Path) -> AnyTrainJob:
    settings = {**TRAIN, "epochs": 10, "label_smoothing": 0.05, "mixup": 0.2, "dropout": 0.1, "ema_decay": 0.8}
    job = delivered.job(tmp_path_factory.mktemp("job"), batches, KIND, DATA, **settings)
    KIND.train(job)
    return job


def scored(job: AnyTrainJob) -> pd.DataFrame:
    test = job.manifest[job.manifest["split"] == "test"].reset_index(drop=True)
    return KIND.score(ScoreJob(job.out / "program", test, job.batches, job.home))


def test_commands_are_learnt_and_scored(trained: AnyTrainJob) -> None:
    table = scored(trained)
    assert list(table["id"]) == list(trained.manifest.loc[trained.manifest["split"] == "test", "id"])
    assert {"speaker", "accent"} <= set(table)
    assert not {"seconds", "rate"} & set(table)
    found = KIND.summary(table, sample.WORDS)
    assert found["accuracy"] > 0.6
    labels = sorted(set(table["label"]))
    truth, answers = (torch.tensor([labels.index(each) for each in table[name]]) for name in ("label", "prediction"))
    assert found["accuracy"] == pytest.approx(float(multiclass_accuracy(answers, truth, 3, average="micro")))
    assert found["balanced_accuracy"] == pytest.approx(float(multiclass_accuracy(answers, truth, 3, average="macro")))
    assert found["macro_f1"] == pytest.approx(float(multiclass_f1_score(answers, truth, 3, average="macro")))


def test_the_service_answers_what_the_evaluation_says(trained: AnyTrainJob) -> None:
    table = scored(trained).head(6)
    predictor = Predictor(trained.out / "program")
    records: list[Any] = table.to_dict("records")
    for row, payload in zip(records, read_payloads(trained.batches, table), strict=True):
        expected = KIND.SERVICE.expected(row, predictor.labels)
        assert KIND.SERVICE.differs(expected, predictor.predict(**KIND.SERVICE.form(payload)), 1e-4) == ""
    with pytest.raises(BadExampleError, match="not a sound"):
        predictor.predict(b"hello" * 100)


def test_a_program_says_what_it_takes(trained: AnyTrainJob) -> None:
    spec = ProgramSpec.load(trained.out / "program")
    assert spec.labels == ("no", "stop", "yes")
    assert spec.input == {"sample_rate": 8000, "samples": 8000, "max_seconds": 30.0}
    summary = json.loads((trained.out / "training/summary.json").read_text())
    assert summary["parity_max_abs_diff"] < 1e-3


def test_the_report_lets_the_worst_mistakes_be_heard(trained: AnyTrainJob) -> None:
    table = scored(trained)
    table.loc[0, "prediction"], table.loc[0, "correct"], table.loc[0, "loss"] = "<b>", 0, 9.0
    job = ReportJob(table, table.assign(correct=1), ("no", "stop", "yes"), trained.manifest, trained.batches)
    pages = {section.title: section.html for section in KIND.report(job)}
    assert list(pages) == ["Confusions", "Confidence", "Worst mistakes"]
    assert "<audio controls" in pages["Worst mistakes"]
    assert "taken for <b>&lt;b&gt;</b>" in pages["Worst mistakes"]
    assert "<span class=tag>new</span>" in pages["Worst mistakes"]


@pytest.mark.parametrize("network", ["bc_resnet", "crnn"])
def test_every_network_of_our_own_goes_the_whole_way(tmp_path: Path, batches: Path, network: str) -> None:
    job = delivered.job(tmp_path, batches, KIND, DATA, **{**TRAIN, "epochs": 1, "network": network})
    KIND.train(job)
    assert set(scored(job)["prediction"]) <= {"no", "stop", "yes"}


def test_a_timm_network_hears_with_imagenets_weights(tmp_path: Path, batches: Path) -> None:
    settings = {**TRAIN, "epochs": 1, "network": "timm/tf_efficientnet_lite0"}
    job = delivered.job(tmp_path, batches, KIND, DATA, **settings)
    KIND.train(job)
    assert set(scored(job)["prediction"]) <= {"no", "stop", "yes"}
    assert ProgramSpec.load(job.out / "program").provenance["pretrained"]["licence"] == "Apache-2.0"


@pytest.mark.parametrize(("mels", "seconds"), [(8, 0.1), (40, 1.0), (64, 3.0)])
def test_any_clip_length_and_number_of_bands_has_room(mels: int, seconds: float) -> None:
    network = MelNetwork(5, 8000, CommandTrain(mels=mels, width=0.25)).eval()
    clips = torch.randint(-3000, 3000, (2, int(8000 * seconds)), dtype=torch.int16)
    logits = network(clips)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(network(clips[:1]), logits[:1], atol=1e-4, rtol=1e-4)


def test_a_bundle_is_fine_tuned_from_its_weights_with_its_body_frozen(
    tmp_path: Path, batches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = keep_weights(shrink(monkeypatch, "WAV2VEC2_BASE", _sample_rate=8000))
    settings = {"network": "wav2vec2_base", "weights": "pretrained", "unfreeze": "head", "epochs": 1, "batch_size": 32}
    job = delivered.job(tmp_path, batches, KIND, DATA, **settings)
    KIND.train(job)
    state = torch.load(job.out / "training/weights.pt", weights_only=True)["state"]
    for name, tensor in theirs.items():
        torch.testing.assert_close(state[f"model.{name}"], tensor)
    assert len(scored(job)) == 24


def test_bundles_are_asked_for_by_name_and_rate() -> None:
    with pytest.raises(UserError, match="Did you mean: hubert_base"):
        build(3, 16_000, CommandTrain(network="huberd_base"))
    with pytest.raises(UserError, match="wav2vec2_base takes sound of 16000 Hz, not 8000"):
        build(3, 8000, CommandTrain(network="wav2vec2_base"))


def test_weights_that_cannot_be_fetched_say_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match=rf"could not be downloaded \(.*; put .*_ls960.pth at {tmp_path}"):
        bundles.bundle_state("wav2vec2_base", ())


def test_a_key_that_only_kinds_on_pictures_use_is_refused() -> None:
    with pytest.raises(ValueError, match="channels_last"):
        CommandTrain(channels_last=True)  # type: ignore[call-arg]


def test_our_own_networks_have_no_pretrained_weights() -> None:
    with pytest.raises(ValueError, match="mel_resnet has no pretrained weights"):
        CommandTrain(weights="pretrained")


def test_real_recordings_are_read_as_delivered() -> None:
    if not FSDD.exists():
        pytest.skip("needs ../shared/data/fsdd")
    source = Source(FSDD / "theo.zip")
    found = list(KIND.examples(source, DATA))
    assert len(found) == 500
    assert not source.rejected
    facts = pd.DataFrame([KIND.inspect(example, DATA) for example in found])
    assert set(facts["rate"]) == {8000}
    assert np.isfinite(facts["level_db"]).all()
    assert {example.split for example in found} == {"train", "test"}
    assert {(example.extra or {})["speaker"] for example in found} == {"theo"}
