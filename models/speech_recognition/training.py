"""Training of a recogniser from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.common.audio.cache import sounds
from models.common.audio.mel import HOP, LogMel
from models.common.data.batches import data_version
from models.common.data.decoded_cache import Ragged
from models.common.errors import UserError
from models.common.kind import TrainJob
from models.common.program.export import export_graph
from models.common.program.parity import parity_of
from models.common.program.program import ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, for_job
from models.common.training.freezing import layer_groups
from models.common.training.logger import Curves
from models.common.training.loop import Fitted, fit
from models.common.training.results import clear_errors, fresh_folders, write_results
from models.common.training.weights import load_file
from models.speech_recognition.bundles import Bundle, load_bundle
from models.speech_recognition.learner import Recogniser, SpeechLearner, Utterances, fits, padded
from models.speech_recognition.networks import Conformer, Recurrent
from models.speech_recognition.params import OWN_NETWORKS, SpeechData, SpeechTrain
from models.speech_recognition.text import Spelling, letters_of

PROBES = 16  # validation recordings that network and program must agree on
USUAL_SECONDS = 3.0  # what the program is timed with
BUNDLE_FRAME = 0.020  # seconds
TOGETHER = 16  # recordings in one call of the program when it is evaluated


def train(job: TrainJob) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    Raises UserError for data or params that cannot be trained with, RatchetError where the training itself fails;
    its checkpoints stay, and the same training run again goes on from them.
    """
    with clear_errors(job):
        alphabet_of(job)
        _sounds(job, job.manifest)  # decoded before processes that would all do it are started
        fresh_folders(job)
        distributed.launch(functools.partial(_work, job), distributed.processes(job.train.devices))


def alphabet_of(job: TrainJob) -> tuple[str, ...]:
    """The letters that are learnt, the space among them; UserError where there is nothing to learn or validate on."""
    data = cast(SpeechData, job.data)
    texts = job.manifest.loc[job.manifest["split"] == "train", "label"].map(Spelling.of(data))
    if texts.empty:
        raise UserError("The training split is empty. Add recordings with transcripts")
    if not (job.manifest["split"] == "val").any():
        raise UserError(
            "The validation split is empty, so no epoch can be told from another."
            " Raise data.splits.val before adding data, or add some with --split val"
        )
    return letters_of(texts) if data.alphabet is None else letters_of([data.alphabet, " "])


def build(train: SpeechTrain, data: SpeechData, alphabet: tuple[str, ...]) -> Recogniser:
    """An untrained network with its preprocessing. UserError where there is no such network."""
    outputs = 1 + len(alphabet)
    if train.network not in OWN_NETWORKS:
        return Recogniser(Bundle(train.network, outputs, data.sample_rate), None)
    network = (Conformer if train.network == "conformer" else Recurrent)(outputs, train)
    return Recogniser(network, LogMel(data.sample_rate, train.mels))


def learner(job: TrainJob, device: torch.device) -> SpeechLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = cast(SpeechData, job.data), cast(SpeechTrain, job.train)
    alphabet = alphabet_of(job)
    torch.manual_seed(train.seed)
    model = build(train, data, alphabet)
    network = model.network
    head = [cast(nn.Module, network.head)]
    if train.weights == "pretrained":
        load_bundle(cast(Bundle, network), train.network, ("", *alphabet))
    elif job.initial:
        load_file(network, head, train.network, ("", *alphabet), job.initial)
    model.to(device)
    utterances, val = (_utterances(job, split, alphabet, device) for split in ("train", "val"))
    return SpeechLearner(model, layer_groups(network, head), train, data.sample_rate, utterances, val, alphabet)


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with clear_errors(job):
        device, train = distributed.device(), cast(SpeechTrain, job.train)
        pupil = learner(job, device)
        squeezed = _squeezed(pupil, job)
        checkpoints = for_job(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with Curves(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, pupil.model, fitted, checkpoints, squeezed)


def _squeezed(pupil: SpeechLearner, job: TrainJob) -> int:
    """How many training transcripts have more letters than their recording has frames; UserError where most have."""
    train = cast(SpeechTrain, job.train)
    frame = frame_seconds(train) * cast(SpeechData, job.data).sample_rate
    letters = pupil.utterances.letters
    short = sum(not fits(said, int(length / frame)) for said, length in zip(letters, pupil.lengths, strict=True))
    if short > len(letters) / 2:
        raise UserError(
            f"{short} of {len(letters)} training transcripts have more letters than their recordings have frames of"
            f" {frame_seconds(train)} s; set train.subsampling: 2, or see whether the transcripts are the right ones"
        )
    if short and distributed.rank() == 0:
        sys.stderr.write(
            f"{short} of {len(letters)} training transcripts are too long for their recordings: nothing is"
            " learnt of them\n"
        )
    return short


def frame_seconds(train: SpeechTrain) -> float:
    """Of one answer."""
    return round(train.subsampling * HOP, 6) if train.network in OWN_NETWORKS else BUNDLE_FRAME


def _finish(job: TrainJob, model: Recogniser, fitted: Fitted, checkpoints: Checkpoints, squeezed: int) -> None:
    train, alphabet = cast(SpeechTrain, job.train), alphabet_of(job)
    model.to("cpu").eval()
    probes = _probes(job)
    write_program(model, job, alphabet)
    together = 1 if model.mel is None else TOGETHER
    difference = proven(model, job.out / "program", probes, together)
    write_results(
        job, model.network, ("", *alphabet), train.network, fitted, parity_max_abs_diff=difference,
        parity_examples=len(probes), transcripts_too_long=squeezed,
    )  # fmt: skip
    checkpoints.clear()


def write_program(model: Recogniser, job: TrainJob, alphabet: tuple[str, ...]) -> None:
    """program.onnx, of any number of recordings of any length, and program.json."""
    data, train = cast(SpeechData, job.data), cast(SpeechTrain, job.train)
    usual = int(USUAL_SECONDS * data.sample_rate)
    spec = ProgramSpec(
        kind="speech_recognition",
        labels=alphabet,
        input={
            "sample_rate": data.sample_rate,
            "max_seconds": data.max_seconds,
            "frame_seconds": frame_seconds(train),
            "together": 1 if model.mel is None else TOGETHER,
            "decoder": train.decoder,
            "beam_width": train.beam_width,
            "lower_case": data.lower_case,
            "ignored": data.ignored,
        },
        provenance=dict(job.provenance),
        example={"samples": [1, usual], "lengths": [1]},
    )
    lengths = torch.tensor([usual] if model.mel is None else [usual, usual // 2])
    samples = (torch.rand(len(lengths), usual) * 2000 - 1000).to(torch.int16)
    open_dimensions = {
        "samples": {0: "batch", 1: "time"}, "lengths": {0: "batch"},
        "logits": {0: "batch", 1: "frame"}, "frames": {0: "batch"},
    }  # fmt: skip
    examples: dict[str, Tensor] = {"samples": samples, "lengths": lengths}
    export_graph(model, examples, ("logits", "frames"), open_dimensions, spec, job.out / "program")


def proven(model: Recogniser, folder: Path, probes: list[NDArray[np.int16]], together: int) -> float:
    """Largest difference between the network's answers and its program's on real recordings of different lengths,
    `together` at a time. Raises RatchetError where it is too large."""
    parts = [probes[start : start + together] for start in range(0, len(probes), together)]
    inputs = [(padded(part, np.int16).numpy(), np.array([len(probe) for probe in part])) for part in parts]
    return max(parity_of(model, folder, {"samples": samples, "lengths": lengths}) for samples, lengths in inputs)


def _probes(job: TrainJob) -> list[NDArray[np.int16]]:
    rows = job.manifest[job.manifest["split"] == "val"].head(PROBES)
    return _sounds(job, rows).take(np.arange(len(rows)))


def _utterances(job: TrainJob, split: str, alphabet: tuple[str, ...], device: torch.device) -> Utterances:
    rows = job.manifest[job.manifest["split"] == split]
    number = {letter: place for place, letter in enumerate(alphabet, 1)}
    texts = rows["label"].map(Spelling.of(cast(SpeechData, job.data)))
    letters = [np.array([number[letter] for letter in text if letter in number], np.int64) for text in texts]
    return Utterances(_sounds(job, rows), letters, device)


def _sounds(job: TrainJob, rows: pd.DataFrame) -> Ragged:
    data = cast(SpeechData, job.data)
    return sounds(rows, job.batches, job.home, data.sample_rate, data.max_seconds)
