"""Training of a segmenter: its learner from a job, its program from the learner, and the check that both agree."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.errors import RatchetError
from models.common.kind import TrainJob
from models.common.program.export import TOLERANCE, export_graph
from models.common.program.program import Program, ProgramSpec
from models.common.training.freezing import layer_groups
from models.common.training.run import Exported, run_training
from models.common.training.weights import load_weights
from models.semantic_segmentation import networks
from models.semantic_segmentation.dataset import class_maps, class_shares, mask_labels, photos
from models.semantic_segmentation.learner import Scenes, SegmentationLearner, Segmenter
from models.semantic_segmentation.params import SegmentationData, SegmentationTrain

PARITY_EXAMPLES = 8  # validation pictures that network and program must agree on
OUTPUTS = ("classes", "confidence")

Job = TrainJob[SegmentationData, SegmentationTrain]


def train(job: Job) -> None:
    """Trains a network and writes the program; see run_training."""
    run_training(job, build, export_program)


def build(job: Job, device: torch.device) -> SegmentationLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    train, labels = job.train, mask_labels(job.manifest, job.data)
    network = networks.build(train.network, len(labels), train.width, train.dropout)
    head = networks.head(train.network, network, train.width)
    if train.weights == "imagenet":
        networks.load_imagenet(train.network, network)
    elif job.initial:
        load_weights(network, head, train.network, labels, job.initial)
    network.to(device)
    scenes, val = (_scenes(job, split, labels, device) for split in ("train", "val"))
    shares = class_shares(job.manifest, labels)
    return SegmentationLearner(network, layer_groups(network, head), scenes, val, train, shares)


def export_program(job: Job, learner: SegmentationLearner) -> Exported:
    """Writes the program, and checks on real pictures that it answers as the network does."""
    data, labels = job.data, mask_labels(job.manifest, job.data)
    width, height = data.size
    spec = ProgramSpec(
        kind="semantic_segmentation",
        labels=labels,
        input={"width": width, "height": height, "max_pixels": data.max_pixels, "void": list(data.void)},
        provenance=dict(job.provenance),
    )
    segmenter, inputs = learner.exportable(), _parity_inputs(job)
    batch = {name: {0: "batch"} for name in ("images", *OUTPUTS)}
    export_graph(segmenter, {"images": torch.from_numpy(inputs[:2])}, OUTPUTS, batch, spec, job.out / "program")
    differing = parity(segmenter, Program(job.out / "program"), inputs)
    agreement = {"parity_differing_pixels": differing, "parity_examples": len(inputs)}
    return Exported(learner.network, job.train.network, labels, agreement)


def parity(segmenter: Segmenter, program: Program, pictures: NDArray[np.uint8]) -> float:
    """Share of pixels whose class differs between network and program on real pictures.

    Raises RatchetError where one differs whose two likeliest classes are not as good as equal, or a mean confidence.
    """
    with torch.inference_mode():
        logits = segmenter.eval().logits(torch.from_numpy(pictures))
        network_outputs = [each.numpy() for each in segmenter(torch.from_numpy(pictures))]
    program_outputs = program.run(images=pictures)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    clear = (first - second > 2 * TOLERANCE * max(1.0, float(logits.abs().max()))).numpy()
    differs = network_outputs[0] != program_outputs["classes"]
    confidence_difference = float(np.abs(network_outputs[1] - program_outputs["confidence"]).max())
    if (differs & clear).any() or not confidence_difference <= TOLERANCE:
        raise RatchetError(
            f"The exported program differs from the network: in {int((differs & clear).sum())} pixels, and in"
            f" confidence by up to {confidence_difference:.2g}. It was not kept; report this with the network's name"
        )
    return float(differs.mean())


def _parity_inputs(job: Job) -> NDArray[np.uint8]:
    """Real pictures, at least two: the tracing exporter would take a batch of one for a constant."""
    rows = job.rows("val").head(PARITY_EXAMPLES)
    pictures = photos(rows, job.batches, job.home, job.data.size, job.data.max_pixels)
    return pictures.take(np.arange(max(2, len(rows))) % len(rows))


def _scenes(job: Job, split: str, labels: tuple[str, ...], device: torch.device) -> Scenes:
    rows = job.rows(split)
    pictures = photos(rows, job.batches, job.home, job.data.size, job.data.max_pixels)
    return Scenes(pictures, class_maps(rows, job.batches, job.home, labels, job.data), device)
