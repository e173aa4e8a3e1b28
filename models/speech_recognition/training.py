"""Training of a recogniser: its learner from a job, its program from the learner."""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.audio.batching import program_inputs
from models.common.audio.mel import HOP
from models.common.errors import UserError
from models.common.kind import TrainJob
from models.common.program.export import export_graph
from models.common.program.parity import check_parity
from models.common.program.program import ProgramSpec
from models.common.training import distributed
from models.common.training.freezing import layer_groups
from models.common.training.run import Exported, run_training
from models.common.transcripts.ctc_decoding import fits
from models.speech_recognition import networks
from models.speech_recognition.dataset import Utterances, alphabet_of, utterances
from models.speech_recognition.learner import SpeechLearner
from models.speech_recognition.networks import Recogniser
from models.speech_recognition.params import BUILTIN_NETWORKS, SpeechData, SpeechTrain
from models.speech_recognition.preprocessing import ProgramInput

PARITY_EXAMPLES = 16  # validation recordings that network and program must agree on
TYPICAL_SECONDS = 3.0  # what the program is timed with
BUNDLE_FRAME_SECONDS = 0.020  # seconds
BATCH_SIZE = 16  # recordings in one call of the program when it is evaluated

Job = TrainJob[SpeechData, SpeechTrain]


def train(job: Job) -> None:
    """Trains a network with CTC and writes the program; see run_training."""
    run_training(job, build, export_program)


def build(job: Job, device: torch.device) -> SpeechLearner:
    """The learner of a job, with its network built and its starting weights loaded.

    UserError where most transcripts have more letters than their recordings have frames.
    """
    data, train = job.data, job.train
    alphabet = alphabet_of(job.manifest, data)
    training, val = (utterances(job.rows(split), job.batches, job.home, data, alphabet) for split in ("train", "val"))
    _check_transcript_lengths(job, training)
    model = networks.build(train, data.sample_rate, alphabet)
    networks.load_initial(model.network, train, alphabet, job.initial)
    model.to(device)
    groups = layer_groups(model.network, [model.network.head])
    return SpeechLearner(model, groups, train, data.sample_rate, training, val, alphabet)


def frame_seconds(train: SpeechTrain) -> float:
    """Of one answer."""
    return round(train.subsampling * HOP, 6) if train.network in BUILTIN_NETWORKS else BUNDLE_FRAME_SECONDS


def _check_transcript_lengths(job: Job, training: Utterances) -> None:
    """Reports how many transcripts nothing is learnt of; UserError where they are most."""
    count, too_long = len(training), _count_too_long(job, training)
    if too_long > count / 2:
        raise UserError(
            f"{too_long} of {count} training transcripts have more letters than their recordings have frames of"
            f" {frame_seconds(job.train)} s; set train.subsampling: 2, or see whether the transcripts are the right"
            " ones"
        )
    if too_long and distributed.rank() == 0:
        sys.stderr.write(
            f"{too_long} of {count} training transcripts are too long for their recordings: nothing is learnt of them\n"
        )


def _count_too_long(job: Job, training: Utterances) -> int:
    """How many transcripts have more letters than their recording has frames."""
    frame = frame_seconds(job.train) * job.data.sample_rate  # samples
    pairs = zip(training.letters, training.lengths, strict=True)
    return sum(not fits(letters, int(length / frame)) for letters, length in pairs)


def export_program(job: Job, learner: SpeechLearner) -> Exported:
    """Writes the program, and checks on real recordings that it answers as the network does."""
    model, alphabet = learner.exportable(), alphabet_of(job.manifest, job.data)
    program = write_program(model, job, alphabet)
    val = learner.val.sounds
    recordings = val.take(np.arange(min(PARITY_EXAMPLES, len(val))))
    details = {
        "parity_max_abs_diff": parity(model, program, recordings, _batch_size(model)),
        "parity_examples": len(recordings),
        "transcripts_too_long": _count_too_long(job, learner.training),
    }
    return Exported(model.network, job.train.network, ("", *alphabet), details)


def write_program(model: Recogniser, job: Job, alphabet: tuple[str, ...]) -> Path:
    """program.onnx, of any number of recordings of any length, and program.json; their folder."""
    data, train, folder = job.data, job.train, job.out / "program"
    typical_samples = int(TYPICAL_SECONDS * data.sample_rate)
    program_input = ProgramInput(
        data.sample_rate, data.max_seconds, frame_seconds(train), _batch_size(model), train.decoder, train.beam_width,
        data.lower_case, data.ignored,
    )  # fmt: skip
    spec = ProgramSpec(
        kind="speech_recognition",
        labels=alphabet,
        input=vars(program_input),
        provenance=dict(job.provenance),
        example={"samples": [1, typical_samples], "lengths": [1]},
    )
    lengths = torch.tensor([typical_samples] if model.mel is None else [typical_samples, typical_samples // 2])
    samples = (torch.rand(len(lengths), typical_samples) * 2000 - 1000).to(torch.int16)
    dynamic_axes = {
        "samples": {0: "batch", 1: "time"}, "lengths": {0: "batch"},
        "logits": {0: "batch", 1: "frame"}, "frames": {0: "batch"},
    }  # fmt: skip
    examples = {"samples": samples, "lengths": lengths}
    export_graph(model, examples, ("logits", "frames"), dynamic_axes, spec, folder)
    return folder


def _batch_size(model: Recogniser) -> int:
    """Recordings in one call of the program; a torchaudio bundle sees padding, so it takes one at a time."""
    return 1 if model.mel is None else BATCH_SIZE


def parity(model: Recogniser, folder: Path, recordings: list[NDArray[np.int16]], batch_size: int) -> float:
    """Largest difference between the network's answers and its program's on real recordings of different lengths,
    `batch_size` at a time. Raises RatchetError where it is too large."""
    parts = [recordings[start : start + batch_size] for start in range(0, len(recordings), batch_size)]
    return max(check_parity(model, folder, program_inputs(part)) for part in parts)
