"""Training of a segmenter from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from models.common.data.batches import data_version
from models.common.errors import RatchetError
from models.common.kind import TrainJob
from models.common.program.export import TOLERANCE, export_graph
from models.common.program.program import Program, ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, for_job
from models.common.training.freezing import layer_groups
from models.common.training.logger import Curves
from models.common.training.loop import Fitted, fit
from models.common.training.results import clear_errors, fresh_folders, write_results
from models.common.training.weights import load_file
from models.semantic_segmentation import networks
from models.semantic_segmentation.classes import class_shares, learnt_classes
from models.semantic_segmentation.dataset import class_maps, photos
from models.semantic_segmentation.learner import Scenes, SegmentationLearner, Segmenter
from models.semantic_segmentation.params import SegmentationData, SegmentationTrain

PROBES = 8  # validation pictures that network and program must agree on


def train(job: TrainJob) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    Raises UserError for data or params that cannot be trained with, RatchetError where the training itself fails;
    its checkpoints stay, and the same training run again goes on from them.
    """
    with clear_errors(job):
        labels = learnt_classes(job.manifest, cast(SegmentationData, job.data))
        _scenes(job, "train", labels, torch.device("cpu"))  # decoded before processes that would all do it are started
        fresh_folders(job)
        distributed.launch(functools.partial(_work, job), distributed.processes(job.train.devices))


def learner(job: TrainJob, device: torch.device) -> SegmentationLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = cast(SegmentationData, job.data), cast(SegmentationTrain, job.train)
    labels = learnt_classes(job.manifest, data)
    torch.manual_seed(train.seed)
    network = networks.build(train.network, len(labels), train.width, train.dropout)
    head = networks.head(train.network, network, train.width)
    if train.weights == "imagenet":
        networks.load_imagenet(train.network, network)
    elif job.initial:
        load_file(network, head, train.network, labels, job.initial)
    network.to(device)
    scenes, val = (_scenes(job, split, labels, device) for split in ("train", "val"))
    shares = class_shares(job.manifest, labels)
    return SegmentationLearner(network, layer_groups(network, head), scenes, val, train, shares)


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with clear_errors(job):
        device, train = distributed.device(), cast(SegmentationTrain, job.train)
        pupil = learner(job, device)
        checkpoints = for_job(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with Curves(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, pupil.network, fitted, checkpoints)


def _finish(job: TrainJob, network: nn.Module, fitted: Fitted, checkpoints: Checkpoints) -> None:
    data, train = cast(SegmentationData, job.data), cast(SegmentationTrain, job.train)
    labels = learnt_classes(job.manifest, data)
    whole = Segmenter(network.to("cpu", memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    width, height = data.size
    spec = ProgramSpec(
        kind="semantic_segmentation",
        labels=labels,
        input={"width": width, "height": height, "max_pixels": data.max_pixels, "void": list(data.void)},
        provenance=dict(job.provenance),
    )
    probes = _probes(job)
    outputs = ("classes", "confidence")
    batch = {name: {0: "batch"} for name in ("images", *outputs)}
    export_graph(whole, {"images": torch.from_numpy(probes[:2])}, outputs, batch, spec, job.out / "program")
    differing = parity(whole, Program(job.out / "program"), probes)
    write_results(
        job, network, labels, train.network, fitted, parity_differing_pixels=differing, parity_examples=len(probes)
    )
    checkpoints.clear()


def parity(whole: Segmenter, program: Program, pictures: NDArray[np.uint8]) -> float:
    """Share of pixels whose class differs between network and program on real pictures.

    Raises RatchetError where one differs whose two likeliest classes are not as good as equal, or a mean confidence.
    """
    with torch.inference_mode():
        logits = whole.eval().logits(torch.from_numpy(pictures))
        ours = [each.numpy() for each in whole(torch.from_numpy(pictures))]
    theirs = program.run(images=pictures)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    clear = (first - second > 2 * TOLERANCE * max(1.0, float(logits.abs().max()))).numpy()
    differs = ours[0] != theirs["classes"]
    unsure = float(np.abs(ours[1] - theirs["confidence"]).max())
    if (differs & clear).any() or not unsure <= TOLERANCE:
        raise RatchetError(
            f"The exported program differs from the network: in {int((differs & clear).sum())} pixels, and in"
            f" confidence by up to {unsure:.2g}. It was not kept; report this with the network's name"
        )
    return float(differs.mean())


def _probes(job: TrainJob) -> NDArray[np.uint8]:
    """Real pictures, at least two: the tracing exporter would take a batch of one for a constant."""
    data = cast(SegmentationData, job.data)
    rows = job.manifest[job.manifest["split"] == "val"].head(PROBES)
    pictures = photos(rows, job.batches, job.home, data.size, data.max_pixels)
    return pictures.take(np.arange(max(2, len(rows))) % len(rows))


def _scenes(job: TrainJob, split: str, labels: tuple[str, ...], device: torch.device) -> Scenes:
    data = cast(SegmentationData, job.data)
    rows: pd.DataFrame = job.manifest[job.manifest["split"] == split]
    pictures = photos(rows, job.batches, job.home, data.size, data.max_pixels)
    return Scenes(pictures, class_maps(rows, job.batches, job.home, labels, data), device)
