"""Voices: who speaks, and whether two are one; verification counted as scikit-learn's ROC does, padding never seen."""

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from models.common.audio import batching, verification
from models.common.audio.batching import program_inputs, run_batched
from models.common.audio.cache import sounds
from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import ScoreJob, load_kind
from models.common.program.program import Program
from models.speaker_identification.learner import cropped
from models.speaker_identification.networks import SpeakerNetwork
from models.speaker_identification.params import SpeakerTrain
from models.speaker_identification.predictor import Predictor
from tasks.evaluate import evaluate
from tasks.package import package
from tasks.serve import free_port, running, unpack
from tests.conftest import CODE
from tests.delivered import job, write_batches
from tests.samples.speaker_identification import TINY, tiny

KIND = load_kind("speaker_identification")
DATA = KIND.Data(**TINY["data"])
FSDD = CODE.parent / "shared" / "data" / "fsdd"


@dataclass(frozen=True)
class Trained:
    root: Path
    program: Path
    manifest: pd.DataFrame
    batches: Path

    def test(self) -> pd.DataFrame:
        return self.manifest[self.manifest["split"] == "test"].reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        return KIND.score(ScoreJob(self.program, self.test(), self.batches, self.root / ".ratchet"))

    def recording(self, speaker: str, number: int) -> bytes:
        return (self.root / "delivery" / f"three-{speaker}-{number:02d}.wav").read_bytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three voices of espeak-ng, learnt in a few seconds."""
    root = tmp_path_factory.mktemp("voices")
    batches = write_batches(root, KIND, DATA, tiny(root / "delivery"))
    settings = {"network": "crnn", "epochs": 16, "batch_size": 10, "learning_rate": 0.01, "early_stopping": 0}
    settings |= {"margin": 0.1, "scale": 10, "augment": {"noise": 0, "time_masks": 0, "frequency_masks": 0}}
    training = job(root, batches, KIND, DATA, **{**TINY["train"], **settings})
    KIND.train(training)
    return Trained(root, training.out / "program", training.manifest, batches)


def voices(count: int, speakers: int, seed: int, dim: int = 6) -> pd.DataFrame:
    """A score table of embeddings that lie about their speakers, some of them among another's."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, speakers, count)
    around = rng.normal(size=(speakers, dim))[who] + rng.normal(size=(count, dim))
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    return pd.DataFrame({"label": [f"speaker {one}" for one in who], "embedding": list(around.astype(np.float32))})


def by_roc(table: pd.DataFrame, weights: NDArray[np.float64]) -> float:
    """The equal error rate of every pair, one by one, by scikit-learn's ROC."""
    similarity, same, weight = [], [], []
    embeddings = np.stack(table["embedding"].to_list()).astype(float)
    for i in range(len(table)):
        for j in range(i):
            similarity.append(embeddings[i] @ embeddings[j])
            same.append(table["label"][i] == table["label"][j])
            weight.append(weights[i] * weights[j])
    drawn = np.array(weight) > 0
    false, true, _ = roc_curve(
        np.array(same)[drawn],
        np.array(similarity)[drawn],
        sample_weight=np.array(weight)[drawn],
        drop_intermediate=False,
    )
    return float(brentq(lambda rate: 1 - rate - np.interp(rate, false, true), 0, 1))


@pytest.mark.parametrize("count", [12, 30, 60])
def test_the_equal_error_rate_is_that_of_scikit_learns_roc_for_any_weights(count: int) -> None:
    table = voices(count, 4, seed=count)
    weights = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), size=15).astype(float)
    weights[0] = 1
    found = verification.equal_error_rate(table)(weights)
    assert found == pytest.approx([by_roc(table, row) for row in weights], abs=1e-9)
    assert len(np.unique(found)) > 8


def test_voices_that_lie_apart_make_no_error_and_equal_ones_are_a_coins_throw() -> None:
    apart = pd.DataFrame(
        {"label": list("aabb"), "embedding": [np.array(one) for one in ([1, 0], [1, 0], [0, 1], [0, 1])]}
    )
    everyone = np.ones((1, 4))
    assert verification.equal_error_rate(apart)(everyone) == pytest.approx(0.0)
    same: list[Any] = [np.array([1.0, 0.0])] * 4
    alike = apart.assign(embedding=same)
    assert verification.equal_error_rate(alike)(everyone) == pytest.approx(0.5)
    wrong = apart.assign(label=list("abab"))
    assert verification.equal_error_rate(wrong)(everyone) == pytest.approx(2 / 3)  # half of two speakers' pairs tie


def test_without_a_pair_of_one_speaker_or_of_two_there_is_no_error_rate() -> None:
    table = voices(6, 2, seed=0)
    rate = verification.equal_error_rate(table)
    mine = (table["label"] == table["label"][0]).to_numpy(float)
    assert np.isnan(rate(mine[None]))
    alone = table.assign(label=[str(number) for number in range(6)])
    assert np.isnan(verification.equal_error_rate(alone)(np.ones((2, 6)))).all()
    scored = alone.assign(correct=1, loss=0.1)
    assert "equal_error_rate" not in KIND.summary(scored, ())


def test_many_pairs_are_drawn_evenly_and_always_the_same() -> None:
    labels = voices(400, 5, seed=3)["label"].to_numpy(object)
    chosen, again = verification.draw_pairs(labels, max_pairs=2_000), verification.draw_pairs(labels, max_pairs=2_000)
    assert np.array_equal(chosen.first, again.first)
    assert len(set(zip(chosen.first.tolist(), chosen.second.tolist(), strict=True))) == 4_000
    assert np.array_equal(chosen.same, labels[chosen.first] == labels[chosen.second])
    assert chosen.same.sum() == 2_000
    assert (chosen.first != chosen.second).all()
    often = np.bincount(np.concatenate([chosen.first, chosen.second]), minlength=400)
    assert often.min() > 2


def test_verifying_20_000_recordings_lists_no_200_million_pairs() -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 40, 20_000).astype(str).astype(object)
    embeddings = rng.normal(size=(20_000, 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    table = pd.DataFrame({"label": labels, "embedding": list(embeddings)})
    weights = np.ones((40, 20_000))
    tracemalloc.start()
    rate = verification.equal_error_rate(table)(weights)[0]
    threshold = verification.best_threshold(labels, embeddings)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100 * 2**20
    assert rate == pytest.approx(0.5, abs=0.03)
    assert threshold == pytest.approx(0, abs=0.03)


def test_a_sample_of_the_pairs_has_about_the_rate_of_all() -> None:
    table = voices(300, 5, seed=4)
    everyone = np.ones((1, 300))
    whole = verification.equal_error_rate(table)(everyone)[0]
    chosen = verification.draw_pairs(table["label"].to_numpy(object), max_pairs=4_000)
    _, rejected, accepted = verification.error_curve(
        chosen.similarities(np.stack(table["embedding"].to_list())), chosen.same
    )
    crossing = np.argmin(np.abs(rejected - accepted))
    assert accepted[crossing] == pytest.approx(whole, abs=0.02)


def test_the_threshold_is_where_both_errors_are_as_frequent() -> None:
    table = voices(80, 4, seed=5)
    labels, embeddings = table["label"].to_numpy(object), np.stack(table["embedding"].to_list())
    threshold = verification.best_threshold(labels, embeddings)
    assert threshold is not None
    chosen = verification.draw_pairs(labels)
    over = chosen.similarities(embeddings) >= threshold
    false, missed = over[~chosen.same].mean(), (~over[chosen.same]).mean()
    rate = verification.equal_error_rate(table)(np.ones((1, 80)))[0]
    assert false == pytest.approx(rate, abs=0.01)
    assert missed == pytest.approx(rate, abs=0.01)
    assert verification.best_threshold(labels[:1], embeddings[:1]) is None


@pytest.mark.parametrize(
    "network", ["bc_resnet", "crnn", "timm/tf_efficientnet_lite0", "timm/mobilenetv3_small_050", "timm/resnet10t"]
)
@pytest.mark.parametrize("pooling", ["attentive", "statistics"])
def test_an_answer_does_not_depend_on_padding(network: str, pooling: Literal["attentive", "statistics"]) -> None:
    torch.manual_seed(0)
    whole = SpeakerNetwork(3, 8000, SpeakerTrain(network=network, pooling=pooling, width=0.5, mels=20, dim=8))
    sound = (3000 * torch.randn(4, 8000)).short()
    whole(sound, torch.tensor([8000, 4000, 6000, 8000]))  # BatchNorm's statistics are then no longer 0 and 1
    whole.eval()
    with torch.inference_mode():
        whole_sound = whole(sound[:1], torch.tensor([8000]))[0].numpy()
        for length in (801, 2400, 4075):
            alone = whole(sound[:1, :length], torch.tensor([length]))[0].numpy()
            long = torch.zeros(2, 8000, dtype=torch.int16)
            long[0, :length], long[1] = sound[0, :length], sound[1]
            among = whole(long, torch.tensor([length, 8000]))[0].numpy()
            assert among[0] == pytest.approx(alone[0], abs=2e-4)
            assert np.abs(alone - whole_sound).max() > 1e-2  # what comes after it would have been heard


def test_the_program_answers_a_batch_as_it_answers_one_by_one(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MAX_BATCH_SAMPLES", 40_000)  # several batches, of a few recordings each
    program = Program(trained.program)
    heard = sounds(trained.test(), trained.batches, trained.root / ".ratchet", 8000, 30.0)
    outputs = run_batched(program, heard)
    logits, embeddings = outputs["logits"], outputs["embedding"]
    assert len(set(heard.lengths)) > 5
    for index in range(0, len(heard), 5):
        alone = program.run(**program_inputs([heard[index]]))
        assert alone["logits"][0] == pytest.approx(logits[index], abs=1e-3)
        assert alone["embedding"][0] == pytest.approx(embeddings[index], abs=1e-4)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(len(heard)), abs=1e-5)


def test_a_timm_networks_program_answers_a_batch_as_it_answers_one_by_one(trained: Trained, tmp_path: Path) -> None:
    settings = {**TINY["train"], "network": "timm/tf_efficientnet_lite0", "epochs": 1, "unfreeze": "head"}
    training = job(tmp_path, trained.batches, KIND, DATA, **settings)
    KIND.train(training)
    program = Program(training.out / "program")
    assert program.spec.provenance["pretrained"]["network"] == "timm/tf_efficientnet_lite0"
    heard = sounds(trained.test(), trained.batches, trained.root / ".ratchet", 8000, 30.0)
    embeddings = run_batched(program, heard)["embedding"]
    for index in range(0, len(heard), 8):
        alone = program.run(**program_inputs([heard[index]]))
        assert alone["embedding"][0] == pytest.approx(embeddings[index], abs=1e-3)


def test_a_network_that_would_hear_padding_is_refused() -> None:
    with pytest.raises(UserError, match=r"timm/convnextv2_atto hears padding: an answer would depend on the other"):
        SpeakerNetwork(3, 8000, SpeakerTrain(network="timm/convnextv2_atto"))
    with pytest.raises(UserError, match=r"timm/vit_tiny_patch16_224 is made for pictures of one size"):
        SpeakerNetwork(3, 8000, SpeakerTrain(network="timm/vit_tiny_patch16_224"))
    with pytest.raises(ValueError, match=r"unknown network 'crrn'. Known: bc_resnet, crnn, and timm's as timm/<name>"):
        SpeakerTrain(network="crrn")


def test_three_voices_are_learnt_and_told_apart(trained: Trained) -> None:
    table = trained.table()
    found = KIND.summary(table, ())
    assert found["accuracy"] > 0.55  # of three; from ten words each
    assert found["equal_error_rate"] < 0.4
    assert list(table["id"]) == list(trained.test()["id"])
    given = json.loads((trained.program / "program.json").read_text())["input"]
    assert 0 < given["threshold"] < 1
    summary = json.loads((trained.program.parent / "training" / "summary.json").read_text())
    assert summary["parity_max_abs_diff"] < 1e-3


def test_a_speaker_that_the_program_does_not_know_is_a_wrong_answer(trained: Trained) -> None:
    rows = trained.test().assign(label="zoe")
    table = KIND.score(ScoreJob(trained.program, rows, trained.batches, trained.root / ".ratchet"))
    assert not table["correct"].any()
    assert (table["loss"] > 20).all()


def test_a_program_without_a_threshold_is_none_of_voices(trained: Trained, tmp_path: Path) -> None:
    other = Path(shutil.copytree(trained.program, tmp_path / "program"))
    spec = json.loads((other / "program.json").read_text())
    del spec["input"]["threshold"]
    (other / "program.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=r"program\.json: input has no 'threshold', so it is no program of voices"):
        KIND.score(ScoreJob(other, trained.test(), trained.batches, trained.root / ".ratchet"))


def test_stretches_lie_inside_their_recording_and_short_ones_stay_whole() -> None:
    torch.manual_seed(0)
    samples = torch.arange(1, 101).repeat(50, 1).short()
    lengths = torch.tensor([100, 30] * 25)
    samples[lengths == 30, 30:] = 0
    found, kept = cropped(samples, lengths, 40)
    assert found.shape == (50, 40)
    assert kept.tolist() == [40, 30] * 25
    assert (found[::2].diff() == 1).all()
    assert (found[::2] > 0).all()
    assert len(set(found[::2, 0].tolist())) > 10
    assert (found[1::2] == samples[1, :40]).all()


def test_a_margin_makes_the_loss_of_the_same_answers_larger(trained: Trained) -> None:
    from models.speaker_identification.training import build

    losses = []
    for margin in (0.0, 0.3):
        settings = {**TINY["train"], "margin": margin, "augment": {"gain_db": 0, "noise": 0}, "crop_seconds": [2, 2]}
        torch.manual_seed(0)
        learner = build(job(trained.root, trained.batches, KIND, DATA, **settings), torch.device("cpu"))
        torch.manual_seed(0)
        losses.append(float(learner.loss(learner.fetch(np.arange(8))).detach()))
    assert losses[1] > losses[0] + 2


def test_a_column_read_as_the_label_leaves_the_given_one_as_a_slice(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,label,speaker,session\n1.wav,7,ann,monday\n")
    (tmp_path / "1.wav").write_bytes(b"-")
    found = list(KIND.examples(Source(tmp_path), DATA))
    assert (found[0].label, found[0].group) == ("ann", "monday")
    assert found[0].extra
    assert found[0].extra["given_label"] == "7"


def test_a_session_in_two_splits_is_no_matter_of_speakers_but_one_recording_of_a_speaker_is_told(
    trained: Trained,
) -> None:
    manifest = trained.manifest.copy()
    checks = KIND.expectations(DATA, manifest)
    assert not manifest["speaker_was_trained_on"].any()
    assert (manifest["test_recordings_of_speaker"] == 8).all()
    verified = next(check for check in checks if check.name == "every speaker can be verified")
    assert (verified.severity, verified.kwargs["min_value"]) == ("warn", 2)


def test_params_that_cannot_be_meant_are_refused() -> None:
    for train in ({"crop_seconds": [2.0, 1.0]}, {"crop_seconds": [0.01, 1.0]}, {"mixup": 0.2}, {"margin": 1.0}):
        with pytest.raises(ValueError, match=r"crop_seconds|mixup|margin"):
            KIND.Train(**train)


def test_two_voices_are_compared_by_the_predictor_and_the_bad_one_is_named(trained: Trained) -> None:
    predictor = Predictor(trained.program)
    anna, other = trained.recording("anna", 0), trained.recording("ben", 1)
    assert predictor.verify(anna, anna)["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert predictor.verify(anna, anna)["same"] is True
    one, two = predictor.verify(anna, other), predictor.verify(other, anna)
    assert one == two
    expected = np.dot(predictor.predict(anna)["embedding"], predictor.predict(other)["embedding"])
    assert one["similarity"] == pytest.approx(expected, abs=1e-4)
    assert one["same"] is (one["similarity"] >= predictor.threshold)
    with pytest.raises(BadExampleError, match=r"^second: not a sound"):
        predictor.verify(anna, b"no sound at all, not even noise")
    (empty := trained.root / "empty").mkdir(exist_ok=True)
    with pytest.raises(UserError):
        Predictor(empty)


@pytest.fixture(scope="module")
def client(trained: Trained) -> Iterator[httpx.Client]:
    """The real Bento, in a process of its own."""
    section = {"kind": "speaker_identification", "data": TINY["data"], "train": {}, "gate": {}}
    (trained.root / "params.yaml").write_text(yaml.safe_dump({"models": {"model": section}}))
    evaluate(trained.root, "model")
    report = package(trained.root, "model", "v1.0.0")
    port = free_port()
    with (
        running(unpack(report.bento, trained.root / "bento"), "127.0.0.1", port, log=trained.root / "log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
    ):
        yield client


def test_the_service_verifies_two_recordings_and_refuses_one(trained: Trained, client: httpx.Client) -> None:
    anna, ben = trained.recording("anna", 2), trained.recording("ben", 3)
    answer = client.post("/verify", files={"first": anna, "second": ben}).json()
    assert {**answer, "model": "", "version": ""} == Predictor(trained.program).verify(anna, ben) | {
        "model": "",
        "version": "",
    }
    assert answer["version"] == "v1.0.0"
    missing = client.post("/verify", files={"first": anna})
    assert missing.status_code == 400
    assert "second" in missing.json()["error"]
    garbage = client.post("/verify", files={"first": anna, "second": b"\x00" * 500})
    assert (garbage.status_code, garbage.json()["error"][:7]) == (400, "second:")
    predicted = client.post("/predict", files={"audio": anna}).json()
    assert set(predicted["probabilities"]) == {"anna", "ben", "carla"}


@pytest.mark.slow
def test_the_speakers_of_fsdd_are_told_apart_on_the_official_split(tmp_path: Path) -> None:
    if not FSDD.exists():
        pytest.skip(f"needs {FSDD}")
    from benchmarks.speakers import with_validation

    section = yaml.safe_load((CODE / "params.yaml").read_text())["models"]["speakers"]
    data = KIND.Data(**section["data"])
    sources = [with_validation(path, tmp_path / path.name) for path in sorted(FSDD.glob("*.zip"))]
    batches = write_batches(tmp_path, KIND, data, *sources)
    training = job(tmp_path, batches, KIND, data, **section["train"])
    KIND.train(training)
    test = training.manifest[training.manifest["split"] == "test"].reset_index(drop=True)
    found = KIND.summary(KIND.score(ScoreJob(training.out / "program", test, batches, training.home)), ())
    assert found["accuracy"] >= 0.995
