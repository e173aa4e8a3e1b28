"""Training of a detector: its learner from a job, its program from the learner."""

import torch

from models.common.kind import TrainJob
from models.common.objects.dataset import canvas_of, object_labels
from models.common.objects.export import export_detector
from models.common.objects.learner import ObjectLearner
from models.common.training.run import Exported, run_training
from models.object_detection import networks
from models.object_detection.dataset import BoxPictures
from models.object_detection.learner import box_task
from models.object_detection.params import DetectionData, DetectionTrain
from models.object_detection.preprocessing import OUTPUTS

Job = TrainJob[DetectionData, DetectionTrain]


def train(job: Job) -> None:
    """Trains a network and writes the program; see run_training."""
    run_training(job, build, export_program)


def build(job: Job, device: torch.device) -> ObjectLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = job.data, job.train
    labels, canvas = object_labels(job.manifest, data), canvas_of(data)
    network = networks.build(train, data, len(labels))
    networks.load_initial(network, train, labels, job.initial)
    pictures, val = (BoxPictures(job.rows(split), job.batches, job.home, canvas, labels) for split in ("train", "val"))
    detector = networks.detector(network, train).to(device)
    return ObjectLearner(detector, box_task(train.augment), pictures, val, train, canvas, labels)


def export_program(job: Job, learner: ObjectLearner) -> Exported:
    """Writes the program, and checks on real pictures that it finds what the network finds."""
    labels = object_labels(job.manifest, job.data)
    agreement = export_detector(job, learner.exportable(OUTPUTS), "object_detection", labels)
    return Exported(learner.network, job.train.design, labels, agreement)
