"""Training on voices from start to finish: checks, weights, learning, threshold, export, what is left on disk."""

import functools
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from models.common.audio.cache import sounds
from models.common.classification.labels import class_labels, class_numbers
from models.common.data.batches import data_version
from models.common.data.decoded_cache import Ragged
from models.common.kind import TrainJob
from models.common.program.export import export_graph
from models.common.program.parity import parity_of
from models.common.program.program import Program, ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, open_checkpoints
from models.common.training.freezing import layer_groups
from models.common.training.logger import TrainingLogger
from models.common.training.loop import TrainingResult, fit
from models.common.training.results import clear_output_folders, explain_resource_errors, write_results
from models.common.training.weights import load_weights
from models.speaker_identification.inputs import padded
from models.speaker_identification.learner import SpeakerLearner, Voices
from models.speaker_identification.networks import SpeakerNetwork
from models.speaker_identification.params import SpeakerData, SpeakerTrain
from models.speaker_identification.scoring import answers
from models.speaker_identification.verification import best_threshold

PROBES = 32  # validation recordings that network and program must agree on
UNDECIDED = 0.5  # threshold where validation has no two recordings of one speaker
OPEN = {
    "samples": {0: "batch", 1: "time"},
    **{name: {0: "batch"} for name in ("lengths", "logits", "embedding")},
}


def train(job: TrainJob) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    Raises UserError for data or params that cannot be trained with, RatchetError where the training itself fails;
    its checkpoints stay, and the same training run again goes on from them.
    """
    with explain_resource_errors(job):
        class_labels(job.manifest, job.data)
        _sounds(job, job.manifest)  # decoded before processes that would all do it are started
        clear_output_folders(job)
        distributed.launch(functools.partial(_work, job), distributed.processes(job.train.devices))


def learner(job: TrainJob, device: torch.device) -> SpeakerLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = cast(SpeakerData, job.data), cast(SpeakerTrain, job.train)
    labels = class_labels(job.manifest, data)
    torch.manual_seed(train.seed)
    network = SpeakerNetwork(len(labels), data.sample_rate, train)
    head = [network.classifier]
    if job.initial:
        load_weights(network, list(head), train.network, labels, job.initial)
    network.to(device)
    voices, val = (_voices(job, split, labels) for split in ("train", "val"))
    return SpeakerLearner(network, layer_groups(network, list(head)), voices, val, data.sample_rate, train)


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with explain_resource_errors(job):
        device, train = distributed.device(), cast(SpeakerTrain, job.train)
        pupil = learner(job, device)
        checkpoints = open_checkpoints(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with TrainingLogger(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, cast(SpeakerNetwork, pupil.network), fitted, checkpoints)


def _finish(job: TrainJob, network: SpeakerNetwork, fitted: TrainingResult, checkpoints: Checkpoints) -> None:
    train, labels = cast(SpeakerTrain, job.train), class_labels(job.manifest, job.data)
    folder, rows = job.out / "program", job.manifest[job.manifest["split"] == "val"]
    val = _sounds(job, rows)
    positions = np.arange(max(2, min(PROBES, len(val)))) % len(val)  # tracing would take a batch of one for a constant
    samples, lengths = padded(val.take(positions))
    probes: dict[str, NDArray[Any]] = {"samples": samples, "lengths": lengths}
    examples = {name: torch.from_numpy(values[:2]) for name, values in probes.items()}
    network.to("cpu")
    export_graph(network, examples, ("logits", "embedding"), OPEN, _spec(job, labels, UNDECIDED), folder)
    difference = parity_of(network, folder, probes)
    _, embeddings = answers(Program(folder), val)
    threshold = best_threshold(rows["label"].to_numpy(object), embeddings)
    _spec(job, labels, UNDECIDED if threshold is None else threshold).save(folder)
    write_results(
        job, network, labels, train.network, fitted, parity_max_abs_diff=difference, parity_examples=len(positions)
    )
    checkpoints.clear()


def _spec(job: TrainJob, labels: tuple[str, ...], threshold: float) -> ProgramSpec:
    """`threshold`: the similarity from which two recordings are called one speaker's."""
    data = cast(SpeakerData, job.data)
    given = {"sample_rate": data.sample_rate, "max_seconds": data.max_seconds, "threshold": threshold}
    usual = [1, round(float(job.manifest["seconds"].median()) * data.sample_rate)]
    return ProgramSpec("speaker_identification", labels, given, dict(job.provenance), {"samples": usual})


def _voices(job: TrainJob, split: str, labels: tuple[str, ...]) -> Voices:
    rows = job.manifest[job.manifest["split"] == split]
    return Voices(_sounds(job, rows), class_numbers(rows, labels))


def _sounds(job: TrainJob, rows: pd.DataFrame) -> Ragged:
    data = cast(SpeakerData, job.data)
    return sounds(rows, job.batches, job.home, data.sample_rate, data.max_seconds)
