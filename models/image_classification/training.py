"""Training of a picture classifier: its learner from a job, its program from the learner."""

import numpy as np
import torch
from numpy.typing import NDArray

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
    data, train = job.data, job.train
    labels = class_labels(job.manifest, data)
    network = networks.build(train.network, len(labels), data.image_size, train.width, train.dropout)
    head = networks.head(train.network, network, data.image_size, train.width)
    networks.load_initial(network, head, train, labels, job.initial)
    network.to(device)
    photos, val = (_photos(job, split, labels, device) for split in ("train", "val"))
    return ImageLearner(network, layer_groups(network, head), photos, val, train)


def build_head(job: Job, learner: ImageLearner) -> HeadLearner | None:
    """The learner of the head alone, on features of the rest."""
    train, val = learner.examples_of("train"), learner.examples_of("val")
    settings = f"{job.data.image_size} {job.data.max_pixels} {job.train.augment.model_dump_json()}"
    return head_learner(job, learner.network, learner.groups, train, val, settings, learner.class_loss)


def export_program(job: Job, learner: ImageLearner) -> Exported:
    """Writes the program, and checks on real pictures that it answers as the network does."""
    data, labels = job.data, class_labels(job.manifest, job.data)
    spec = ProgramSpec(
        kind="image_classification",
        labels=labels,
        input={"size": data.image_size, "max_pixels": data.max_pixels},
        provenance=dict(job.provenance),
    )
    network, inputs = learner.exportable(), _parity_inputs(job)
    export(network, torch.from_numpy(inputs[:2]), spec, job.out / "program")
    difference = parity(network, job.out / "program", inputs)
    agreement = {"parity_max_abs_diff": difference, "parity_examples": len(inputs)}
    return Exported(learner.network, job.train.network, labels, agreement)


def _parity_inputs(job: Job) -> NDArray[np.uint8]:
    """Real pictures, at least two: the tracing exporter would take a batch of one for a constant."""
    rows = job.rows("val").head(PARITY_EXAMPLES)
    decoded = pixels(rows, job.batches, job.home, job.data.image_size, job.data.max_pixels)
    return decoded.take(np.arange(max(2, len(rows))) % len(rows))


def _photos(job: Job, split: str, labels: tuple[str, ...], device: torch.device) -> Photos:
    rows = job.rows(split)
    decoded = pixels(rows, job.batches, job.home, job.data.image_size, job.data.max_pixels)
    return Photos(decoded, class_indices(rows, labels), device)
