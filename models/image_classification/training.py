"""Training of a picture classifier from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from models.common.classification.labels import class_labels, class_numbers
from models.common.data.batches import data_version
from models.common.data.decoded_cache import Decoded
from models.common.image.normalisation import Normalised
from models.common.kind import TrainJob
from models.common.program.export import export, parity
from models.common.program.program import ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, for_job
from models.common.training.freezing import layer_groups
from models.common.training.logger import Curves
from models.common.training.loop import Fitted, fit
from models.common.training.results import clear_errors, fresh_folders, write_results
from models.image_classification import networks
from models.image_classification.dataset import pixels
from models.image_classification.learner import ImageLearner, Photos
from models.image_classification.params import ImageData, ImageTrain
from models.image_classification.weights import load_initial

PROBES = 64  # validation pictures that network and program must agree on


def train(job: TrainJob) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    Raises UserError for data or params that cannot be trained with, RatchetError where the training itself fails;
    its checkpoints stay, and the same training run again goes on from them.
    """
    with clear_errors(job):
        class_labels(job.manifest, cast(ImageData, job.data))
        _pixels(job, job.manifest)  # decoded before processes that would all do it are started
        fresh_folders(job)
        distributed.launch(functools.partial(_work, job), distributed.processes(job.train.devices))


def learner(job: TrainJob, device: torch.device) -> ImageLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = cast(ImageData, job.data), cast(ImageTrain, job.train)
    labels = class_labels(job.manifest, data)
    torch.manual_seed(train.seed)
    network = networks.build(train.network, len(labels), data.image_size, train.width, train.dropout)
    head = networks.head(train.network, network, data.image_size, train.width)
    load_initial(network, head, train.network, labels, train.weights, job.initial)
    network.to(device)
    photos, val = (_photos(job, split, labels, device) for split in ("train", "val"))
    return ImageLearner(network, layer_groups(network, head), photos, val, train)


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with clear_errors(job):
        device, train = distributed.device(), cast(ImageTrain, job.train)
        pupil = learner(job, device)
        checkpoints = for_job(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with Curves(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, pupil.network, fitted, checkpoints)


def _finish(job: TrainJob, network: nn.Module, fitted: Fitted, checkpoints: Checkpoints) -> None:
    data, train = cast(ImageData, job.data), cast(ImageTrain, job.train)
    labels = class_labels(job.manifest, data)
    whole = Normalised(network.to("cpu", memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    spec = ProgramSpec(
        kind="image_classification",
        labels=labels,
        input={"size": data.image_size, "max_pixels": data.max_pixels},
        provenance=dict(job.provenance),
    )
    probes = _probes(job)
    export(whole, torch.from_numpy(probes[:2]), spec, job.out / "program")
    difference = parity(whole, job.out / "program", probes)
    write_results(
        job, network, labels, train.network, fitted, parity_max_abs_diff=difference, parity_examples=len(probes)
    )
    checkpoints.clear()


def _probes(job: TrainJob) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Real pictures, at least two: the tracing exporter would take a batch of one for a constant."""
    rows = job.manifest[job.manifest["split"] == "val"].head(PROBES)
    return _pixels(job, rows).take(np.arange(max(2, len(rows))) % len(rows))


def _photos(job: TrainJob, split: str, labels: tuple[str, ...], device: torch.device) -> Photos:
    rows = job.manifest[job.manifest["split"] == split]
    return Photos(_pixels(job, rows), class_numbers(rows, labels), device)


def _pixels(job: TrainJob, rows: pd.DataFrame) -> Decoded:
    data = cast(ImageData, job.data)
    return pixels(rows, job.batches, job.home, data.image_size, data.max_pixels)
