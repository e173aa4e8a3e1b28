"""Training of a picture classifier: its learner from a job, its program from the learner."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.backbones.classifiers import Backbone
from models.common.backbones.normalisation import normalised
from models.common.backbones.pretrained import load_initial, origin_details, with_origin
from models.common.classification.frozen import HeadLearner, head_learner
from models.common.classification.labels import class_indices, class_labels
from models.common.kind import TrainJob
from models.common.program.export import export, parity
from models.common.program.program import ProgramSpec
from models.common.training.freezing import layer_groups
from models.common.training.run import Exported, run_training
from models.image_classification import networks
from models.image_classification.dataset import pixels
from models.image_classification.learner import ImageLearner, Photos
from models.image_classification.params import ImageData, ImageTrain

PARITY_EXAMPLES = 64  # validation pictures that network and program must agree on

Job = TrainJob[ImageData, ImageTrain]


def train(job: Job) -> None:
    """Trains a network and writes the program; see run_training."""
    run_training(job, build, export_program, build_head)


def build(job: Job, device: torch.device) -> ImageLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    train, labels, backbone = job.train, class_labels(job.manifest, job.data), _backbone(job)
    network = backbone.build(len(labels), train.dropout)
    head = backbone.head(network)
    origin = load_initial(network, head, backbone, train.weights, labels, job.initial)
    network.to(device)
    photos, val = (_photos(job, split, labels, backbone.size, device) for split in ("train", "val"))
    model = normalised(backbone.name, network)
    return ImageLearner(model, layer_groups(network, head), photos, val, train, origin)


def build_head(job: Job, learner: ImageLearner) -> HeadLearner | None:
    """The learner of the head alone, on features of the rest."""
    train, val = learner.examples_of("train"), learner.examples_of("val")
    settings = f"{job.train.network} {_backbone(job).size} {job.data.max_pixels} {job.train.augment.model_dump_json()}"
    return head_learner(job, learner.network, learner.groups, train, val, settings, learner.class_loss)


def export_program(job: Job, learner: ImageLearner) -> Exported:
    """Writes the program, and checks on real pictures that it answers as the network does."""
    data, labels, size = job.data, class_labels(job.manifest, job.data), _backbone(job).size
    spec = ProgramSpec(
        kind="image_classification",
        labels=labels,
        input={"size": size, "max_pixels": data.max_pixels},
        provenance=with_origin(job.provenance, learner.origin),
    )
    network, inputs = learner.exportable(), _parity_inputs(job, size)
    export(network, torch.from_numpy(inputs[:2]), spec, job.out / "program")
    difference = parity(network, job.out / "program", inputs)
    details = {"parity_max_abs_diff": difference, "parity_examples": len(inputs), "image_size": size}
    return Exported(learner.network, job.train.network, labels, details | origin_details(learner.origin))


def _backbone(job: Job) -> Backbone:
    return networks.backbone(job.data, job.train, job.rows("train"))


def _parity_inputs(job: Job, size: int) -> NDArray[np.uint8]:
    """Real pictures, at least two: the tracing exporter would take a batch of one for a constant."""
    rows = job.rows("val").head(PARITY_EXAMPLES)
    decoded = pixels(rows, job.batches, job.home, size, job.data.max_pixels)
    return decoded.take(np.arange(max(2, len(rows))) % len(rows))


def _photos(job: Job, split: str, labels: tuple[str, ...], size: int, device: torch.device) -> Photos:
    rows = job.rows(split)
    decoded = pixels(rows, job.batches, job.home, size, job.data.max_pixels)
    return Photos(decoded, class_indices(rows, labels), device)
