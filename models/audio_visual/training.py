"""Training on pictures with sound from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
from typing import cast

import numpy as np
import torch

from models.audio_visual.dataset import Inputs, Media
from models.audio_visual.inputs import Sizes
from models.audio_visual.learner import AudioVisualLearner
from models.audio_visual.networks import Answers, AudioVisual
from models.audio_visual.params import AudioVisualData, AudioVisualTrain
from models.common.classification.labels import class_labels, class_numbers
from models.common.data.batches import data_version
from models.common.errors import UserError
from models.common.kind import TrainJob
from models.common.program.export import export_graph
from models.common.program.parity import parity_of
from models.common.program.program import ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, open_checkpoints
from models.common.training.freezing import layer_groups
from models.common.training.logger import TrainingLogger
from models.common.training.loop import TrainingResult, fit
from models.common.training.results import clear_output_folders, explain_resource_errors, write_results
from models.common.training.weights import load_weights

PROBES = 64  # validation examples that network and program must agree on
OPEN = ("images", "samples", "has_image", "has_audio", *Answers._fields)  # their first dimension is the batch


def train(job: TrainJob) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    Raises UserError for data or params that cannot be trained with, RatchetError where the training itself fails;
    its checkpoints stay, and the same training run again goes on from them.
    """
    with explain_resource_errors(job):
        class_labels(job.manifest, job.data)
        _check_both(job)
        _media(job, None)  # decoded before processes that would all do it are started
        clear_output_folders(job)
        distributed.launch(functools.partial(_work, job), distributed.processes(job.train.devices))


def learner(job: TrainJob, device: torch.device) -> AudioVisualLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = cast(AudioVisualData, job.data), cast(AudioVisualTrain, job.train)
    labels = class_labels(job.manifest, data)
    torch.manual_seed(train.seed)
    network = AudioVisual(len(labels), data, train)
    if job.initial:
        load_weights(network, [network.classifier], _name(train), labels, job.initial)
    network.to(device)
    groups = layer_groups(network, [network.classifier])
    numbers = [class_numbers(job.manifest[job.manifest["split"] == split], labels) for split in ("train", "val")]
    media = _media(job, "train"), _media(job, "val")
    return AudioVisualLearner(network, groups, media, (numbers[0], numbers[1]), data.sample_rate, train)


def _check_both(job: TrainJob) -> None:
    learnt = job.manifest.loc[job.manifest["split"] == "train", "parts"]
    for part, word in (("image", "picture"), ("audio", "sound")):
        if not learnt.str.contains(part).any():
            raise UserError(f"No training example has a {word}; this kind learns from both. Add some that have one")


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with explain_resource_errors(job):
        device, train = distributed.device(), cast(AudioVisualTrain, job.train)
        pupil = learner(job, device)
        checkpoints = open_checkpoints(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with TrainingLogger(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, cast(AudioVisual, pupil.network), fitted, checkpoints)


def _finish(job: TrainJob, network: AudioVisual, fitted: TrainingResult, checkpoints: Checkpoints) -> None:
    train, labels, sizes = cast(AudioVisualTrain, job.train), class_labels(job.manifest, job.data), _sizes(job)
    network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    spec = ProgramSpec("audio_visual", labels, vars(sizes), dict(job.provenance))
    probes = vars(_probes(job))
    examples = {name: torch.from_numpy(values[:2]) for name, values in probes.items()}
    export_graph(network, examples, Answers._fields, {name: {0: "batch"} for name in OPEN}, spec, job.out / "program")
    difference = parity_of(network, job.out / "program", probes)
    count = len(probes["has_image"])
    write_results(job, network, labels, _name(train), fitted, parity_max_abs_diff=difference, parity_examples=count)
    checkpoints.clear()


def _probes(job: TrainJob) -> Inputs:
    """Real examples, at least two: the tracing exporter would take a batch of one for a constant."""
    media = _media(job, "val")
    return media.take(np.arange(max(2, min(PROBES, len(media)))) % len(media))


def _media(job: TrainJob, split: str | None) -> Media:
    rows = job.manifest if split is None else job.manifest[job.manifest["split"] == split]
    return Media(rows, job.batches, job.home, _sizes(job))


def _sizes(job: TrainJob) -> Sizes:
    data = cast(AudioVisualData, job.data)
    samples = round(data.clip_seconds * data.sample_rate)
    return Sizes(data.image_size, data.max_pixels, data.sample_rate, data.max_seconds, samples)


def _name(train: AudioVisualTrain) -> str:
    return f"{train.image_network}+{train.audio_network}"
