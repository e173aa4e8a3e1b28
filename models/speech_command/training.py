"""Training on commands: a learner from a job, a program from the learner."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.backbones.pretrained import Origin, origin_details, origin_of_file, with_origin
from models.common.classification.labels import class_indices, class_labels
from models.common.data.decoded_cache import Ragged
from models.common.kind import TrainJob
from models.common.program.export import export_graph, parity
from models.common.program.program import ProgramSpec
from models.common.training.freezing import layer_groups
from models.common.training.run import Exported, run_training
from models.common.training.weights import load_weights
from models.speech_command import networks
from models.speech_command.dataset import clips
from models.speech_command.learner import Clips, CommandLearner
from models.speech_command.params import CommandData, CommandTrain

PARITY_EXAMPLES = 64  # validation recordings that network and program must agree on
DYNAMIC_AXES = {"clips": {0: "batch"}, "logits": {0: "batch"}}

Job = TrainJob[CommandData, CommandTrain]


def train(job: Job) -> None:
    """Fine-tunes a network and writes the program; see run_training."""
    run_training(job, build, export_program)


def build(job: Job, device: torch.device) -> CommandLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = job.data, job.train
    labels = class_labels(job.manifest, data)
    network = networks.build(len(labels), data.sample_rate, train)
    origin = _load_initial(job, network, labels)
    network.to(device)
    training, val = (_clips(job, split, labels, device) for split in ("train", "val"))
    groups = layer_groups(network, [network.head])
    return CommandLearner(network, groups, training, val, data.sample_rate, train, origin)


def _load_initial(job: Job, network: networks.CommandNetwork, labels: tuple[str, ...]) -> Origin | None:
    if job.train.weights in job.train.WEIGHT_SOURCES:
        return networks.load_pretrained(network, job.train)
    if job.initial is None:
        return None
    load_weights(network, [network.head], job.train.network, labels, job.initial)
    return origin_of_file(job.train.network, job.train.weights, job.initial)


def export_program(job: Job, learner: CommandLearner) -> Exported:
    """Writes the program, and checks on real recordings that it answers as the network does."""
    data, labels = job.data, class_labels(job.manifest, job.data)
    spec = ProgramSpec(
        kind="speech_command",
        labels=labels,
        input={"sample_rate": data.sample_rate, "samples": data.samples, "max_seconds": data.max_seconds},
        provenance=with_origin(job.provenance, learner.origin),
        example={"clips": [1, data.samples]},
    )
    network, inputs, folder = learner.network.to("cpu"), _parity_inputs(job), job.out / "program"
    export_graph(network, {"clips": torch.from_numpy(inputs[:2])}, ("logits",), DYNAMIC_AXES, spec, folder)
    difference = parity(network, folder, inputs, "clips")
    agreement = {"parity_max_abs_diff": difference, "parity_examples": len(inputs)}
    return Exported(network, job.train.network, labels, agreement | origin_details(learner.origin))


def _parity_inputs(job: Job) -> NDArray[np.int16]:
    """Real clips, at least two: the tracing exporter would take a batch of one for a constant."""
    rows = job.rows("val").head(PARITY_EXAMPLES)
    return np.stack(_decoded(job, "val").take(np.arange(max(2, len(rows))) % len(rows)))


def _clips(job: Job, split: str, labels: tuple[str, ...], device: torch.device) -> Clips:
    return Clips(_decoded(job, split), class_indices(job.rows(split), labels), device)


def _decoded(job: Job, split: str) -> Ragged:
    data = job.data
    return clips(job.rows(split), job.batches, job.home, data.sample_rate, data.max_seconds, data.samples)
