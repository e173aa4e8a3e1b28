"""Training on pictures with sound: its learner from a job, its program from the learner."""

import numpy as np
import torch
from torch import nn

from models.audio_visual.dataset import Inputs, Media
from models.audio_visual.learner import AudioVisualLearner
from models.audio_visual.networks import Answers, AudioVisual, load_image_weights
from models.audio_visual.params import AudioVisualData, AudioVisualTrain
from models.audio_visual.preprocessing import Sizes
from models.common.backbones.pretrained import Origin, origin_details, origin_of_file, with_origin
from models.common.classification.labels import class_indices, class_labels
from models.common.errors import UserError
from models.common.kind import TrainJob
from models.common.program.export import export_graph
from models.common.program.parity import check_parity
from models.common.program.program import ProgramSpec
from models.common.training.freezing import layer_groups
from models.common.training.run import Exported, run_training
from models.common.training.weights import load_weights

PARITY_EXAMPLES = 64  # validation examples that network and program must agree on
BATCH_AXES = ("images", "samples", "has_image", "has_audio", *Answers._fields)  # their first dimension is the batch

Job = TrainJob[AudioVisualData, AudioVisualTrain]


def train(job: Job) -> None:
    """Trains both branches and what joins them, and writes the program; see run_training."""
    run_training(job, build, export_program)


def build(job: Job, device: torch.device) -> AudioVisualLearner:
    """The learner of a job, with its network built and its starting weights loaded.

    UserError where no training example has a picture, or none a sound.
    """
    data, train = job.data, job.train
    labels = class_labels(job.manifest, data)
    _check_both(job)
    network = AudioVisual(len(labels), data, train)
    head: list[nn.Module] = [network.classifier]
    origin = _load_initial(job, network, head, labels)
    if train.weights == "imagenet":  # all but the image branch is new
        head = [part for part in network.children() if part is not network.image]
    network.to(device)
    classes = class_indices(job.rows("train"), labels), class_indices(job.rows("val"), labels)
    media = _media(job, "train"), _media(job, "val")
    return AudioVisualLearner(network, layer_groups(network, head), media, classes, data.sample_rate, train, origin)


def _load_initial(job: Job, network: AudioVisual, head: list[nn.Module], labels: tuple[str, ...]) -> Origin | None:
    if job.train.weights == "imagenet":
        return load_image_weights(network, job.data, job.train)
    if job.initial is None:
        return None
    load_weights(network, head, _name(job.train), labels, job.initial)
    return origin_of_file(_name(job.train), job.train.weights, job.initial)


def _check_both(job: Job) -> None:
    parts = job.rows("train")["parts"]
    for part, word in (("image", "picture"), ("audio", "sound")):
        if not parts.str.contains(part).any():
            raise UserError(f"No training example has a {word}; this kind learns from both. Add some that have one")


def export_program(job: Job, learner: AudioVisualLearner) -> Exported:
    """Writes the program, and checks on real examples that it answers as the network does."""
    labels, folder = class_labels(job.manifest, job.data), job.out / "program"
    network, inputs = learner.exportable(), vars(_parity_inputs(job))
    spec = ProgramSpec("audio_visual", labels, vars(_sizes(job.data)), with_origin(job.provenance, learner.origin))
    examples = {name: torch.from_numpy(values[:2]) for name, values in inputs.items()}
    export_graph(network, examples, Answers._fields, {name: {0: "batch"} for name in BATCH_AXES}, spec, folder)
    difference = check_parity(network, folder, inputs)
    agreement = {"parity_max_abs_diff": difference, "parity_examples": len(inputs["has_image"])}
    return Exported(network, _name(job.train), labels, agreement | origin_details(learner.origin))


def _parity_inputs(job: Job) -> Inputs:
    """Real examples, at least two: the tracing exporter would take a batch of one for a constant."""
    media = _media(job, "val")
    return media.take(np.arange(max(2, min(PARITY_EXAMPLES, len(media)))) % len(media))


def _media(job: Job, split: str) -> Media:
    return Media(job.rows(split), job.batches, job.home, _sizes(job.data))


def _sizes(data: AudioVisualData) -> Sizes:
    samples = round(data.clip_seconds * data.sample_rate)
    return Sizes(data.image_size, data.max_pixels, data.sample_rate, data.max_seconds, samples)


def _name(train: AudioVisualTrain) -> str:
    return f"{train.image_network}+{train.audio_network}"
