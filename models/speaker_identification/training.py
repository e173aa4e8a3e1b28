"""Training on voices: a learner from a job, a program with its threshold from the learner."""

import numpy as np
import torch
from torch import nn

from models.common.audio.batching import program_inputs, run_batched
from models.common.audio.spectrogram_pictures import SpectrogramPictures
from models.common.audio.verification import best_threshold
from models.common.backbones.pretrained import Origin, origin_details, origin_of_file, with_origin
from models.common.classification.labels import class_labels
from models.common.kind import TrainJob
from models.common.program.export import export_graph
from models.common.program.parity import check_parity
from models.common.program.program import Program, ProgramSpec
from models.common.training.freezing import layer_groups
from models.common.training.run import Exported, run_training
from models.common.training.weights import load_weights
from models.speaker_identification.dataset import recordings
from models.speaker_identification.learner import SpeakerLearner
from models.speaker_identification.networks import SpeakerNetwork
from models.speaker_identification.params import SpeakerData, SpeakerTrain

PARITY_EXAMPLES = 32  # validation recordings that network and program must agree on
DEFAULT_THRESHOLD = 0.5  # threshold where validation has no two recordings of one speaker
OUTPUTS = ("logits", "embedding")
DYNAMIC_AXES = {
    "samples": {0: "batch", 1: "time"},
    **{name: {0: "batch"} for name in ("lengths", *OUTPUTS)},
}

Job = TrainJob[SpeakerData, SpeakerTrain]


def train(job: Job) -> None:
    """Trains a network and writes the program; see run_training."""
    run_training(job, build, export_program)


def build(job: Job, device: torch.device) -> SpeakerLearner:
    """The learner of a job, with its network built and its starting weights loaded."""
    data, train = job.data, job.train
    labels = class_labels(job.manifest, data)
    network = SpeakerNetwork(len(labels), data.sample_rate, train)
    head: list[nn.Module] = [network.classifier]
    origin = _load_initial(job, network, labels)
    if train.weights == "imagenet":  # all behind the backbone is new
        head = [network.pool, network.norm, network.embed, network.classifier]
    network.to(device)
    training, val = (recordings(job, split, labels) for split in ("train", "val"))
    return SpeakerLearner(network, layer_groups(network, head), training, val, data.sample_rate, train, origin)


def _load_initial(job: Job, network: SpeakerNetwork, labels: tuple[str, ...]) -> Origin | None:
    if isinstance(network.backbone, SpectrogramPictures) and job.train.weights == "imagenet":
        return network.backbone.load_pretrained()
    if job.initial is None:
        return None
    load_weights(network, [network.classifier], job.train.network, labels, job.initial)
    return origin_of_file(job.train.network, job.train.weights, job.initial)


def export_program(job: Job, learner: SpeakerLearner) -> Exported:
    """Writes the program, checks on real recordings that it answers as the network does, and sets its threshold."""
    labels, folder, network = class_labels(job.manifest, job.data), job.out / "program", learner.network.to("cpu")
    val = recordings(job, "val", labels)
    # At least two: tracing would take a batch of one for a constant.
    positions = np.arange(max(2, min(PARITY_EXAMPLES, len(val)))) % len(val)
    inputs = program_inputs(val.sounds.take(positions))
    examples = {name: torch.from_numpy(values[:2]) for name, values in inputs.items()}
    spec = _spec(job, labels, learner.origin, DEFAULT_THRESHOLD)
    export_graph(network, examples, OUTPUTS, DYNAMIC_AXES, spec, folder)
    difference = check_parity(network, folder, inputs)
    embeddings = run_batched(Program(folder), val.sounds)["embedding"]
    threshold = best_threshold(job.rows("val")["label"].to_numpy(object), embeddings)
    if threshold is not None:
        _spec(job, labels, learner.origin, threshold).save(folder)
    agreement = {"parity_max_abs_diff": difference, "parity_examples": len(positions)}
    return Exported(network, job.train.network, labels, agreement | origin_details(learner.origin))


def _spec(job: Job, labels: tuple[str, ...], origin: Origin | None, threshold: float) -> ProgramSpec:
    """`threshold`: the similarity from which two recordings are called one speaker's."""
    data = job.data
    typical_samples = round(float(job.manifest["seconds"].median()) * data.sample_rate)
    return ProgramSpec(
        kind="speaker_identification",
        labels=labels,
        input={"sample_rate": data.sample_rate, "max_seconds": data.max_seconds, "threshold": threshold},
        provenance=with_origin(job.provenance, origin),
        example={"samples": [1, typical_samples]},
    )
