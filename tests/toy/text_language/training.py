"""Training: a learner from a job, a program from the learner."""

import numpy as np
import torch

from models.common.classification.labels import class_indices, class_labels
from models.common.kind import AnyTrainJob
from models.common.program.export import export, parity
from models.common.program.program import ProgramSpec
from models.common.training.run import Exported, run_training
from models.common.training.weights import load_weights
from models.text_language.dataset import texts
from models.text_language.learner import Batch, LanguageLearner
from models.text_language.networks import Network


def train(job: AnyTrainJob) -> None:
    """Trains a network and writes the program."""
    run_training(job, build, export_program)


def build(job: AnyTrainJob, device: torch.device) -> LanguageLearner:
    """The learner, with its starting weights."""
    labels = class_labels(job.manifest, job.data)
    network = Network(len(labels))
    if job.initial:
        load_weights(network, [network.head], "linear", labels, job.initial)
    return LanguageLearner(network.to(device), *(_batch(job, split, labels, device) for split in ("train", "val")))


def export_program(job: AnyTrainJob, learner: LanguageLearner) -> Exported:
    """The program, proven on validation texts."""
    labels, network, probes = class_labels(job.manifest, job.data), learner.network.cpu(), learner.validation[0].cpu()
    export(network, probes[:2], ProgramSpec("text_language", labels, {}, dict(job.provenance)), job.out / "program")
    return Exported(network, "linear", labels, {"parity": parity(network, job.out / "program", probes.numpy())})


def _batch(job: AnyTrainJob, split: str, labels: tuple[str, ...], device: torch.device) -> Batch:
    rows = job.rows(split)
    shares = texts(rows, job.batches, job.home).take(np.arange(len(rows)))
    return torch.from_numpy(shares).to(device), torch.tensor(class_indices(rows, labels), device=device)
