"""Training on commands from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from models.common.audio.cache import sounds
from models.common.audio.decoding import fitted
from models.common.classification.labels import class_labels, class_numbers
from models.common.data.batches import data_version
from models.common.data.decoded_cache import Ragged
from models.common.kind import TrainJob
from models.common.program.export import export_graph, parity
from models.common.program.program import ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, open_checkpoints
from models.common.training.freezing import layer_groups
from models.common.training.logger import TrainingLogger
from models.common.training.loop import TrainingResult, fit
from models.common.training.results import clear_output_folders, explain_resource_errors, write_results
from models.common.training.weights import load_weights
from models.speech_command.learner import Clips, CommandLearner
from models.speech_command.networks import build
from models.speech_command.params import CommandData, CommandTrain

PROBES = 64  # validation recordings that network and program must agree on
OPEN = {"clips": {0: "batch"}, "logits": {0: "batch"}}


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


def learner(job: TrainJob, device: torch.device) -> CommandLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = cast(CommandData, job.data), cast(CommandTrain, job.train)
    labels = class_labels(job.manifest, data)
    torch.manual_seed(train.seed)
    network = build(len(labels), data.sample_rate, train)
    if job.initial:
        load_weights(network, [network.head], train.network, labels, job.initial)
    network.to(device)
    clips, val = (_clips(job, split, labels, device) for split in ("train", "val"))
    return CommandLearner(network, layer_groups(network, [network.head]), clips, val, data.sample_rate, train)


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with explain_resource_errors(job):
        device, train = distributed.device(), cast(CommandTrain, job.train)
        pupil = learner(job, device)
        checkpoints = open_checkpoints(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with TrainingLogger(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted_to = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, pupil.network, fitted_to, checkpoints)


def _finish(job: TrainJob, network: nn.Module, fitted_to: TrainingResult, checkpoints: Checkpoints) -> None:
    data, train = cast(CommandData, job.data), cast(CommandTrain, job.train)
    labels, samples = class_labels(job.manifest, data), _samples(data)
    network.to("cpu").eval()
    given = {"sample_rate": data.sample_rate, "samples": samples, "max_seconds": data.max_seconds}
    spec = ProgramSpec("speech_command", labels, given, dict(job.provenance), {"clips": [1, samples]})
    heard = _sounds(job, job.manifest[job.manifest["split"] == "val"].head(PROBES))
    # at least two: the tracing exporter would take a batch of one for a constant
    probes = np.stack([fitted(heard[place % len(heard)], samples) for place in range(max(2, len(heard)))])
    export_graph(network, {"clips": torch.from_numpy(probes[:2])}, ("logits",), OPEN, spec, job.out / "program")
    difference = parity(network, job.out / "program", probes, "clips")
    write_results(
        job, network, labels, train.network, fitted_to, parity_max_abs_diff=difference, parity_examples=len(probes)
    )
    checkpoints.clear()


def _samples(data: CommandData) -> int:
    return round(data.clip_seconds * data.sample_rate)


def _clips(job: TrainJob, split: str, labels: tuple[str, ...], device: torch.device) -> Clips:
    rows = job.manifest[job.manifest["split"] == split]
    return Clips(_sounds(job, rows), class_numbers(rows, labels), _samples(cast(CommandData, job.data)), device)


def _sounds(job: TrainJob, rows: pd.DataFrame) -> Ragged:
    data = cast(CommandData, job.data)
    return sounds(rows, job.batches, job.home, data.sample_rate, data.max_seconds)
