"""Training from start to finish on real scans: what it leaves, how it goes on after a crash, what it refuses."""

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.common.data.batches import data_version, read_payloads
from models.common.errors import OutOfMemoryError, RatchetError, UserError
from models.common.image.normalisation import Normalised
from models.common.kind import TrainJob
from models.common.program.export import export, parity
from models.common.program.program import Program, ProgramSpec
from models.common.training import checkpoints, distributed, run
from models.common.training.logger import TrainingLogger
from models.common.training.recipe import resolve_job
from models.image_classification.dataset import pixels
from models.image_classification.learner import ImageLearner
from models.image_classification.params import ImageData, ImageTrain
from models.image_classification.preprocessing import square
from models.image_classification.training import build, build_head, train
from tests import together
from tests.learning import digits_batch, digits_job

Job = TrainJob[ImageData, ImageTrain]


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_batch(tmp_path_factory.mktemp("batch"))


def summary_of(job: Job) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((job.out / "training" / "summary.json").read_text())
    return summary


def history_of(job: Job) -> pd.DataFrame:
    return pd.read_csv(job.out / "training" / "history.csv")


def weights_of(job: Job) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(job.out / "training" / "weights.pt", weights_only=True)["state"]
    return state


def test_training_learns_the_digits_and_leaves_all_that_the_next_steps_need(tmp_path: Path) -> None:
    job = digits_job(tmp_path, digits_batch(tmp_path / "b", 400), epochs=8, ema_decay=0.8)
    train(job)
    history, summary = history_of(job), summary_of(job)
    assert list(history["epoch"]) == list(range(1, 9))
    assert set(history) == {
        "epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate", "seconds", "seconds_per_step",
        "examples_per_s",
    }  # fmt: skip
    assert history["val_accuracy"].max() > 0.9
    assert summary["epochs_run"] == 8
    assert summary["best_epoch"] == history["val_loss"].argmin() + 1
    assert summary["parameters"] == summary["trainable_parameters"] > 0
    assert summary["parity_max_abs_diff"] < 1e-3
    trained_on = pd.read_parquet(job.out / "training" / "trained_on.parquet")
    assert set(trained_on["id"]) == set(job.manifest["id"])
    assert list((job.out / "training" / "tensorboard").iterdir())
    assert not list((job.home / "checkpoints").glob("*/*"))
    check_program(job, history["val_accuracy"][summary["best_epoch"] - 1])


def check_program(job: Job, accuracy: float) -> None:
    spec = ProgramSpec.load(job.out / "program")
    assert spec.labels == tuple(sorted(set(job.manifest["label"])))
    assert spec.input == {"size": 8, "max_pixels": 50_000_000}
    val = job.manifest[job.manifest["split"] == "val"]
    pictures = pixels(val, job.batches, job.home, 8, 50_000_000).take(np.arange(len(val)))
    logits = Program(job.out / "program").run(images=pictures)["logits"]
    assert Program(job.out / "program").run(images=pictures[:1])["logits"] == pytest.approx(logits[:1], abs=1e-4)
    answers = np.array(spec.labels)[logits.argmax(1)]
    assert (answers == val["label"].to_numpy()).mean() == pytest.approx(accuracy, abs=0.021)


class Crash(TrainingLogger):
    """Dies after two epochs, as a machine might."""

    def start_epoch(self, epoch: int, steps: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt
        super().start_epoch(epoch, steps)


SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "ema_decay": 0.9,
    "mixup": 0.2,
    "dropout": 0.2,
    "augment": {"crop": 0.125, "erase": 0.5},
}


def test_an_interrupted_training_goes_on_and_ends_exactly_as_if_nothing_had_happened(
    tmp_path: Path, batches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (digits_job(tmp_path / name, batches, **SETTINGS) for name in ("whole", "broken"))
    train(whole)
    with monkeypatch.context() as patched:
        patched.setattr(run, "TrainingLogger", Crash)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    assert list((broken.home / "checkpoints").glob("*/last.pt"))
    started: list[int] = []
    start_epoch = TrainingLogger.start_epoch

    def note_start(logger: TrainingLogger, epoch: int, steps: int) -> None:
        started.append(epoch)
        start_epoch(logger, epoch, steps)

    monkeypatch.setattr(TrainingLogger, "start_epoch", note_start)
    train(broken)
    assert started == [3, 4]
    assert all(torch.equal(weights_of(broken)[name], tensor) for name, tensor in weights_of(whole).items())
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate"]
    pd.testing.assert_frame_equal(history_of(broken)[columns], history_of(whole)[columns])


def test_a_killed_process_leaves_a_checkpoint_that_the_next_one_goes_on_from_to_the_very_same_weights(
    tmp_path: Path,
) -> None:
    batches = digits_batch(tmp_path / "b")
    code = (
        "import sys; from pathlib import Path; from tests.learning import digits_job; "
        "from models.image_classification.training import train; "
        "train(digits_job(Path(sys.argv[1]), Path(sys.argv[2]), epochs=20, early_stopping=0))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(batches)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    told = next(line for line in process.stderr if line.startswith("epoch 3/20"))
    process.send_signal(signal.SIGKILL)
    process.communicate()  # closes its pipe too
    assert "val_accuracy" in told
    job = digits_job(tmp_path, batches, epochs=20, early_stopping=0)
    saved = checkpoints.open_checkpoints(resolve_job(job), data_version(batches)).load("last", torch.device("cpu"))
    assert saved
    assert saved["epoch"] >= 2
    whole = digits_job(tmp_path / "whole", batches, epochs=20, early_stopping=0)
    for each in (job, whole):
        train(each)
    programs = [(each.out / "program/program.onnx").read_bytes() for each in (job, whole)]
    assert hashlib.sha256(programs[0]).digest() == hashlib.sha256(programs[1]).digest()
    assert list(history_of(job)["epoch"]) == list(range(1, 21))


def test_another_param_or_batch_starts_afresh(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches)
    folders = {
        checkpoints.open_checkpoints(job, "a").folder,
        checkpoints.open_checkpoints(job, "b").folder,
        checkpoints.open_checkpoints(digits_job(tmp_path, batches, seed=1), "a").folder,
    }
    assert len(folders) == 3
    assert checkpoints.open_checkpoints(digits_job(tmp_path / "elsewhere", batches), "a").folder.name in {
        folder.name for folder in folders
    }


def test_early_stopping_brings_the_rate_down_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    batches = digits_batch(tmp_path / "b", 240)
    job = digits_job(tmp_path, batches, epochs=40, early_stopping=2, learning_rate=0.05, decay_share=0.1, ema_decay=0)
    train(job)
    history, summary = history_of(job), summary_of(job)
    assert summary["stopped_early"]
    assert len(history) == summary["decay_from_epoch"] + 3 < 40
    assert history["learning_rate"].iloc[-1] < 0.2 * history["learning_rate"].max()
    assert history["val_loss"].argmin() + 1 == summary["best_epoch"]
    check_program(job, history["val_accuracy"][summary["best_epoch"] - 1])


def test_bf16_learns_as_fp32_does(tmp_path: Path, batches: Path) -> None:
    jobs = [digits_job(tmp_path / each, batches, precision=each) for each in ("fp32", "bf16")]
    for job in jobs:
        train(job)
        assert summary_of(job)["precision"] == job.train.precision
    losses = [history_of(job)["train_loss"].to_numpy() for job in jobs]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("unfreeze", ["head", "gradual"])
def test_a_champions_weights_are_the_start_and_frozen_layers_stay_as_they_were(
    tmp_path: Path, batches: Path, unfreeze: str
) -> None:
    first = digits_job(tmp_path / "first", batches)
    train(first)
    settings: dict[str, Any] = {"weights": "champion", "unfreeze": unfreeze, "epochs": 2, "learning_rate": 0.001}
    again = replace(digits_job(tmp_path / "again", batches, **settings), initial=first.out / "training" / "weights.pt")
    train(again)
    before, after = weights_of(first), weights_of(again)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert "classifier.weight" not in same
    assert ("features.0.0.weight" in same) == (unfreeze == "head")
    assert history_of(again)["train_loss"][0] < history_of(first)["train_loss"][0]


def head_job(root: Path, batches: Path, initial: Path, **train: Any) -> Job:
    """A training from the weights of another, that begins with the head alone."""
    settings = {"weights": "champion", "unfreeze": "head", "precision": "fp32", **train}
    return resolve_job(replace(digits_job(root, batches, **settings), initial=initial))


def test_a_head_alone_learns_from_features_that_are_computed_once(tmp_path: Path, batches: Path) -> None:
    first = digits_job(tmp_path / "first", batches)
    train(first)
    initial = first.out / "training" / "weights.pt"
    job = head_job(tmp_path, batches, initial)
    train(job)
    files = {path: path.stat().st_mtime_ns for path in (job.home / "decoded").glob("features-*/*.npy")}
    assert sorted(path.name.split("-")[2] for path in files) == ["view0", "view0", "view1"]
    train(head_job(tmp_path, batches, initial, epochs=5, learning_rate=0.02))
    assert {path: path.stat().st_mtime_ns for path in (job.home / "decoded").glob("features-*/*.npy")} == files
    initial = initial.rename(tmp_path / "weights.pt")
    another = torch.load(initial, weights_only=True)
    another["state"]["classifier.weight"] += 1  # another head on the same layers
    torch.save(another, initial)
    train(head_job(tmp_path, batches, initial))
    assert {path: path.stat().st_mtime_ns for path in (job.home / "decoded").glob("features-*/*.npy")} == files
    train(head_job(tmp_path, batches, initial, augment={"rotate": 20}))
    assert len(list((job.home / "decoded").glob("features-*"))) == 2


def test_a_head_on_features_answers_as_the_whole_network_does(tmp_path: Path, batches: Path) -> None:
    first = digits_job(tmp_path / "first", batches)
    train(first)
    job = head_job(tmp_path, batches, first.out / "training" / "weights.pt")
    learner = build(job, torch.device("cpu"))
    head = build_head(job, learner)
    assert head
    with torch.inference_mode():
        learner.network.eval()
        assert head.evaluate() == pytest.approx(learner.evaluate(), rel=1e-5)
    views, classes = head.fetch(np.array([3, 0]))
    assert torch.equal(classes, learner.fetch(np.array([3, 0]))[1])
    with torch.inference_mode():
        expected = learner.network(learner._model.normalise(learner.fetch(np.array([3, 0]))[0].float()))
        assert torch.allclose(head.network(views[0]), expected, atol=1e-5)
        assert not torch.allclose(head.network(views[1]), expected, atol=1e-2)


def test_a_new_head_learns_alone_first_and_then_everything(
    tmp_path: Path, batches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = digits_job(tmp_path / "first", batches)
    train(first)
    job = head_job(tmp_path, batches, first.out / "training" / "weights.pt", unfreeze="head_first")
    train(job)
    assert "head alone, 10 epochs on features of the frozen rest: val_loss" in capsys.readouterr().err
    before, after = weights_of(first), weights_of(job)
    assert not [name for name in before if name.endswith("weight") and torch.equal(before[name], after[name])]
    assert len(history_of(job)) == job.train.epochs


def out_of_memory_above(size: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = ImageLearner.loss

    def limited(learner: ImageLearner, batch: Any) -> torch.Tensor:
        if len(batch[1]) > size:
            raise error
        return loss(learner, batch)

    monkeypatch.setattr(ImageLearner, "loss", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_out_of_memory_is_tried_once_more_with_half_the_batch_and_then_is_one_line(
    tmp_path: Path,
    batches: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    job = digits_job(tmp_path, batches, epochs=1)
    out_of_memory_above(16, error, monkeypatch)
    train(job)
    assert "once more with batches of 16, two of them for each update of the weights" in capsys.readouterr().err
    assert summary_of(job)["accumulation"] == 2
    out_of_memory_above(8, error, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"too small for batches of 16, half of train.batch_size \(32\). Lower"):
        train(job)


def test_a_full_disk_is_one_line_and_loses_no_checkpoint(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches, epochs=3)
    folder = checkpoints.open_checkpoints(resolve_job(job), data_version(batches)).folder
    folder.mkdir(parents=True)
    (folder / "last.partial").symlink_to("/dev/full")  # each write to it fails as on a full disk
    with pytest.raises(RatchetError, match=r"The disk is full .* Nothing is lost: free some space and run again"):
        train(job)
    assert sorted(path.name for path in folder.iterdir()) == ["best.pt"]
    train(job)
    assert summary_of(job)["epochs_run"] == 3


def test_a_full_disk_while_decoding_is_one_line_too(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches)
    cache = job.home / "decoded"
    pixels(job.manifest, batches, job.home, 8, job.data.max_pixels)
    made = next(cache.rglob("*.npy"))
    made.unlink()
    made.with_suffix(f".{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(RatchetError, match="The disk is full"):
        train(job)
    assert not list(cache.rglob("*.npy"))


def test_a_torchvision_network_trains_and_its_program_agrees(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches, {"image_size": 32}, network="mobilenet_v3_small", weights="none", epochs=1)
    train(replace(job, manifest=job.manifest.groupby("label").head(8)))
    assert ProgramSpec.load(job.out / "program").input["size"] == 32
    assert summary_of(job)["parity_max_abs_diff"] < 1e-3


@pytest.mark.slow
def test_pooling_that_the_quick_exporter_cannot_do_is_exported_by_the_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(3), torch.nn.Flatten(), torch.nn.Linear(27, 2))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    whole = Normalised(network)
    export(whole, torch.from_numpy(pictures[:2]), ProgramSpec("image_classification", ("a", "b"), {}, {}), tmp_path)
    assert parity(whole, tmp_path, pictures) < 1e-4
    assert capfd.readouterr() == ("", "")


def test_a_program_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    last = torch.nn.Linear(192, 2)
    whole = Normalised(torch.nn.Sequential(torch.nn.Flatten(), last))
    export(whole, torch.from_numpy(pictures[:2]), ProgramSpec("image_classification", ("a", "b"), {}, {}), tmp_path)
    with torch.no_grad():
        last.bias.add_(torch.tensor([0.1, 0.0]))
    with pytest.raises(RatchetError, match=r"The exported program differs from the network: logits by up to 0.1"):
        parity(whole, tmp_path, pictures)


def test_a_diverging_loss_says_what_to_change(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches, optimizer="sgd", learning_rate=1e30, max_grad_norm=0, precision="fp32")
    with pytest.raises(RatchetError, match=r"Training diverged: the loss is .* Lower train.learning_rate"):
        train(job)


def test_data_that_cannot_be_trained_on_is_refused_in_one_line(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches)
    zero = job.manifest["label"] == "zero"
    one_class = replace(job, manifest=job.manifest[zero])
    scarce = replace(job, manifest=job.manifest.drop(job.manifest[zero & (job.manifest["split"] == "train")].index[1:]))
    unheard = replace(job, manifest=job.manifest.drop(job.manifest[zero & (job.manifest["split"] == "train")].index))
    unchecked = replace(job, manifest=job.manifest[job.manifest["split"] == "train"])
    with pytest.raises(UserError, match="at least two classes; the training split holds only 'zero'"):
        train(one_class)
    with pytest.raises(UserError, match=r"Too few training examples: 'zero' has 1; data.min_per_class is 2"):
        train(scarce)
    with pytest.raises(UserError, match="Label 'zero' is in the data but has no training example"):
        train(unheard)
    with pytest.raises(UserError, match="The validation split is empty"):
        train(unchecked)


def test_wandb_that_is_not_installed_is_asked_for(tmp_path: Path, batches: Path) -> None:
    with pytest.raises(UserError, match="wandb is not installed: pip install wandb, or set it false"):
        train(digits_job(tmp_path, batches, wandb=True))


def test_decoded_pictures_are_what_the_decoder_gives_in_any_order_and_once_only(tmp_path: Path, batches: Path) -> None:
    job = digits_job(tmp_path, batches)
    found = pixels(job.manifest, batches, job.home, 8, 64_000)
    positions = np.array([70, 3, 119, 3])
    payloads = read_payloads(batches, job.manifest.iloc[positions])
    assert np.array_equal(found.take(positions), np.stack([square(each, 8, 64_000) for each in payloads]))
    made = next((job.home / "decoded").rglob("*.npy"))
    stamp = made.stat().st_mtime_ns
    pixels(job.manifest, batches, job.home, 8, 64_000)
    assert made.stat().st_mtime_ns == stamp


def test_processes_that_train_together_share_the_mean_gradient_and_one_verdict(tmp_path: Path) -> None:
    distributed.launch(functools.partial(together.meet, tmp_path), 2)
    answers = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
    assert answers == [[[1.5, 15.0], {"val_loss": 0.0}, 2]] * 2


@pytest.mark.slow
def test_an_error_in_one_of_several_processes_is_one_line_here() -> None:
    with pytest.raises(RatchetError, match=r"^one of us cannot: try again$"):
        distributed.launch(together.fail, 2)


@pytest.mark.gpu
def test_a_gpu_keeps_the_pictures_and_learns_in_bf16(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    job = digits_job(tmp_path, digits_batch(tmp_path / "b", 400), epochs=8)
    start = time.perf_counter()
    train(job)
    assert summary_of(job)["precision"] == "bf16"
    assert history_of(job)["val_accuracy"].max() > 0.9
    assert time.perf_counter() - start < 60
