"""Training of a detector from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from models.common.data.batches import data_version
from models.common.errors import RatchetError
from models.common.image.letterbox import Canvas
from models.common.kind import TrainJob
from models.common.objects.annotations import Annotation
from models.common.objects.average_precision import box_iou
from models.common.objects.dataset import annotations, canvases, object_labels
from models.common.program.export import export_graph
from models.common.program.program import Program, ProgramSpec
from models.common.training import distributed
from models.common.training.checkpoints import Checkpoints, open_checkpoints
from models.common.training.freezing import layer_groups
from models.common.training.logger import TrainingLogger
from models.common.training.loop import TrainingResult, fit
from models.common.training.results import clear_output_folders, explain_resource_errors, write_results
from models.object_detection import networks
from models.object_detection.learner import DetectionLearner, Goals, Scenes
from models.object_detection.networks import Detector, Single
from models.object_detection.params import DetectionData, DetectionTrain
from models.object_detection.weights import load_initial

PROBES = 16  # validation pictures that network and program must agree on
TOLERANCE = 1e-3  # of a score, and of the picture's width for a box
CLOSE_CALLS = 0.02  # share of boxes that may be in one answer alone
CLOSE = 0.01  # of a score: boxes that are as sure as each other
SAME, TWIN = 0.98, 0.3  # IoU of a box computed twice; of boxes of which one may have displaced the other


def train(job: TrainJob) -> None:
    """Trains on `job.manifest`, on every GPU asked for, and writes job.out/program and job.out/training.

    Raises UserError for data or params that cannot be trained with, RatchetError where the training itself fails;
    its checkpoints stay, and the same training run again goes on from them.
    """
    with explain_resource_errors(job):
        object_labels(job.manifest, job.data)
        canvases(job.manifest, job.batches, job.home, canvas_of(_data(job)))  # once, before processes that all would
        clear_output_folders(job)
        distributed.launch(functools.partial(_work, job), distributed.processes(job.train.devices))


def learner(job: TrainJob, device: torch.device) -> DetectionLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = _data(job), _train(job)
    labels, canvas = object_labels(job.manifest, job.data), canvas_of(data)
    torch.manual_seed(train.seed)
    network = networks.build(train, data, len(labels))
    load_initial(network, networks.class_layers(train, network), train, labels, job.initial)
    network.to(device)
    groups = layer_groups(network, networks.head(network))
    scenes, val = (_scenes(job, split, labels, canvas, device) for split in ("train", "val"))
    return DetectionLearner(network, groups, scenes, val, train, canvas, labels)


def canvas_of(data: DetectionData) -> Canvas:
    """How the `data` section has pictures laid on the network's input."""
    return Canvas(*data.size, data.keep_aspect, data.max_pixels)


def _work(job: TrainJob) -> None:
    """What each process does; the first one writes."""
    with explain_resource_errors(job):
        device, train = distributed.device(), _train(job)
        pupil = learner(job, device)
        checkpoints = open_checkpoints(job, data_version(job.batches))
        writes = distributed.rank() == 0
        config = {"model": job.model, **train.model_dump()} if train.wandb else None
        with TrainingLogger(job.out / "training" if writes else None, train.epochs, config) as curves:
            fitted = fit(pupil, train, f"val_{train.metric}", device, checkpoints, curves)
        if writes:
            _finish(job, pupil.network, fitted, checkpoints)


def _finish(job: TrainJob, network: nn.Module, fitted: TrainingResult, checkpoints: Checkpoints) -> None:
    data, labels = _data(job), object_labels(job.manifest, job.data)
    network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    whole = Single(Detector(network, _train(job))).eval()
    canvas = canvas_of(data)
    spec = ProgramSpec(
        kind="object_detection",
        labels=labels,
        input={
            "width": canvas.width,
            "height": canvas.height,
            "keep_aspect": canvas.keep_aspect,
            "max_pixels": canvas.max_pixels,
            "score_threshold": data.score_threshold,
        },
        provenance=dict(job.provenance),
    )
    rows = job.manifest[job.manifest["split"] == "val"].head(PROBES)
    probes = canvases(rows, job.batches, job.home, canvas).take(np.arange(len(rows)))
    export(whole, torch.from_numpy(probes[:1]), spec, job)
    proof = parity(whole, Program(job.out / "program"), probes)
    write_results(job, network, labels, _train(job).design, fitted, **proof)
    checkpoints.clear()


def export(whole: Single, example: torch.Tensor, spec: ProgramSpec, job: TrainJob) -> None:
    """job.out/program: the whole detector for one picture, its choice among overlapping boxes included."""
    outputs = ("boxes", "scores", "labels")
    found = {name: {0: "found"} for name in outputs}
    export_graph(whole, {"images": example}, outputs, found, spec, job.out / "program")


def parity(whole: Single, program: Program, pictures: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, float]:
    """How far the program's boxes and scores are from the network's on real pictures, as summary.json has it.

    Raises RatchetError where they are not the same but for close calls.
    """
    scores = boxes = alone = total = 0.0
    for picture in pictures:
        with torch.inference_mode():
            ours = _with_area(*(tensor.numpy() for tensor in whole(torch.from_numpy(picture[None]))))
        outputs = program.run(images=picture[None])
        theirs = _with_area(outputs["boxes"], outputs["scores"], outputs["labels"])
        place, apart, missing = _compared(ours, theirs)
        boxes, scores = max(boxes, place), max(scores, apart)
        alone, total = alone + missing, total + len(ours[1]) + len(theirs[1])
    if boxes > TOLERANCE * pictures.shape[2] or scores > TOLERANCE or alone > 1 + CLOSE_CALLS * total:
        raise RatchetError(
            f"The exported program differs from the network: boxes by up to {boxes:.2g} px, scores by up to"
            f" {scores:.2g}, {alone:.0f} of {total:.0f} boxes are in one answer alone. It was not kept; report this"
        )
    return {
        "parity_max_abs_diff": scores,
        "parity_box_px": boxes,
        "parity_boxes": total / 2,
        "parity_alone": alone,
        "parity_examples": len(pictures),
    }


def _with_area(boxes: Any, scores: Any, labels: Any) -> list[Any]:
    """Without boxes of no width or height, of which many are alike; nobody is answered them either."""
    real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return [boxes[real], scores[real], labels[real]]


def _compared(ours: list[Any], theirs: list[Any]) -> tuple[float, float, int]:
    """Largest difference of boxes (px) and of scores between answers to the same thing; how many of either are alone.

    Of two boxes as sure as each other that overlap, or that come last in an answer that is full, either may be kept:
    what has such a twin is not alone.
    """
    overlaps = box_iou(ours[0].astype(float), theirs[0].astype(float), np.zeros(len(theirs[1]), bool))
    near = np.abs(ours[1][:, None] - theirs[1][None]) <= CLOSE
    overlaps = np.where((ours[2][:, None] == theirs[2][None]) & near, overlaps, 0.0)
    mine, twin = np.nonzero(overlaps > SAME)
    alone = 0
    for (_, scores, _), others, overlap in ((ours, theirs[1], overlaps), (theirs, ours[1], overlaps.T)):
        last = others.min(initial=np.inf) + CLOSE
        alone += int(((overlap.max(axis=1, initial=0) < TWIN) & (scores > last)).sum())
    boxes = np.abs(ours[0][mine] - theirs[0][twin]).max(initial=0)
    return float(boxes), float(np.abs(ours[1][mine] - theirs[1][twin]).max(initial=0)), alone


def _scenes(job: TrainJob, split: str, labels: tuple[str, ...], canvas: Canvas, device: torch.device) -> Scenes:
    rows: pd.DataFrame = job.manifest[job.manifest["split"] == split]
    known: list[Annotation] = annotations(rows, job.batches)
    found = canvases(rows, job.batches, job.home, canvas)
    return Scenes(found, known, Goals.of(known, labels, canvas), device)


def _data(job: TrainJob) -> DetectionData:
    return cast(DetectionData, job.data)


def _train(job: TrainJob) -> DetectionTrain:
    return cast(DetectionTrain, job.train)
