"""Training of Mask R-CNN from start to finish: checks, weights, learning, export, what is left on disk."""

import functools
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.common.data.batches import data_version
from models.common.errors import RatchetError
from models.common.image.letterbox import Canvas
from models.common.kind import TrainJob
from models.common.objects import backbones
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
from models.instance_segmentation import networks
from models.instance_segmentation.learner import InstanceLearner, Scenes
from models.instance_segmentation.networks import Segmenter, Single
from models.instance_segmentation.objects import OUTPUTS
from models.instance_segmentation.params import InstanceData, InstanceTrain
from models.instance_segmentation.weights import load_initial

PROBES = 16  # validation pictures that network and program must agree on
TOLERANCE = 1e-3  # of a score, and of the picture's width for a box
MASK_TOLERANCE = 1e-2  # of a cell's probability: a box moved by a thousandth moves the cells
CLOSE_CALLS = 0.02  # share of objects that may be in one answer alone: of two as good as equal either may come first
SAME_BOX = 0.9  # IoU: the same box, computed twice


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


def learner(job: TrainJob, device: torch.device) -> InstanceLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = _data(job), _train(job)
    labels, canvas = object_labels(job.manifest, data), canvas_of(data)
    torch.manual_seed(train.seed)
    network = networks.build(train, data, len(labels))
    load_initial(network, networks.class_layers(train, data, network), train, labels, job.initial)
    network.to(device)
    groups = layer_groups(network, backbones.head(network))
    scenes, val = (_scenes(job, split, labels, canvas, device) for split in ("train", "val"))
    return InstanceLearner(network, groups, scenes, val, train, canvas, labels)


def canvas_of(data: InstanceData) -> Canvas:
    """How the `data` section has pictures laid on the network's input."""
    return Canvas(*data.size, data.keep_aspect, data.max_pixels)


def _scenes(job: TrainJob, split: str, labels: tuple[str, ...], canvas: Canvas, device: torch.device) -> Scenes:
    rows = job.manifest[job.manifest["split"] == split]
    pixels = canvases(rows, job.batches, job.home, canvas)
    return Scenes(pixels, annotations(rows, job.batches), labels, canvas, device)


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
    whole = Single(Segmenter(network)).eval()
    canvas = canvas_of(data)
    spec = ProgramSpec(
        kind="instance_segmentation",
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
    """job.out/program: the whole network for one picture, its choice among overlapping boxes included."""
    found = {name: {0: "found"} for name in OUTPUTS}
    with torch.inference_mode():
        export_graph(whole, {"images": example}, OUTPUTS, found, spec, job.out / "program")


def parity(whole: Single, program: Program, pictures: NDArray[np.uint8]) -> dict[str, float]:
    """How far the program's boxes, scores and masks are from the network's on real pictures, as summary.json has it.

    Raises RatchetError where they are not the same but for close calls.
    """
    apart, alone, total = np.zeros(3), 0, 0
    for picture in pictures:
        with torch.inference_mode():
            ours = [tensor.numpy() for tensor in whole(torch.from_numpy(picture[None]))]
        answer = program.run(images=picture[None])
        theirs = [answer[name] for name in OUTPUTS]
        difference, missing = _compared(ours, theirs)
        apart = np.maximum(apart, difference)
        alone, total = alone + missing, total + len(ours[1]) + len(theirs[1])
    boxes, scores, masks = apart.tolist()
    if (
        not (boxes <= TOLERANCE * pictures.shape[2] and scores <= TOLERANCE and masks <= MASK_TOLERANCE)
        or alone > 1 + CLOSE_CALLS * total
    ):
        raise RatchetError(
            f"The exported program differs from the network: boxes by up to {boxes:.2g} px, scores by up to"
            f" {scores:.2g}, masks by up to {masks:.2g}, {alone} of {total} objects are in one answer alone."
            " It was not kept; report this"
        )
    return {
        "parity_max_abs_diff": scores,
        "parity_box_px": boxes,
        "parity_mask": masks,
        "parity_objects": total / 2,
        "parity_alone": alone,
        "parity_examples": len(pictures),
    }


def _compared(ours: list[Any], theirs: list[Any]) -> tuple[NDArray[np.float64], int]:
    """Largest difference of boxes (px), scores and masks of objects that are in both answers; how many are in one."""
    overlaps = box_iou(ours[0].astype(float), theirs[0].astype(float), np.zeros(len(theirs[1]), bool))
    near = np.abs(ours[1][:, None] - theirs[1][None]) <= 10 * TOLERANCE
    overlaps = np.where((ours[2][:, None] == theirs[2][None]) & near, overlaps, 0.0)
    if not overlaps.size:
        return np.zeros(3), len(ours[1]) + len(theirs[1])
    best = overlaps.argmax(axis=1)
    same = overlaps[np.arange(len(best)), best] > SAME_BOX
    alone = int((~same).sum()) + len(theirs[1]) - len(set(best[same].tolist()))
    pairs = [(ours[part][same], theirs[part][best[same]]) for part in (0, 1, 3)]
    return np.array([np.abs(one - other).max(initial=0) for one, other in pairs], np.float64), alone


def _data(job: TrainJob) -> InstanceData:
    return cast(InstanceData, job.data)


def _train(job: TrainJob) -> InstanceTrain:
    return cast(InstanceTrain, job.train)
