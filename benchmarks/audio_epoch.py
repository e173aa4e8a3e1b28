"""An epoch of sounds: ours beside a DataLoader of per-item torchaudio transforms; and the latency of a program.

Both read the same WAV files and give (64, 40, 100) log-mel batches, masked, in a shuffled order. Ours decodes and
resamples each file once, into a memory map (models/speech_command/dataset.py), and does the rest for a whole batch at
once.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio

from models.common.audio.augmentation import augment_waveform, spec_augment
from models.common.audio.mel import LogMel
from models.common.audio.params import AudioAugment
from models.common.data.batches import read_manifest
from models.common.kind import load_kind
from models.common.program.export import export_graph
from models.common.program.program import Program, ProgramSpec
from models.common.training.loop import prefetched
from models.common.training.memory import keep_freed_memory
from models.speech_command.dataset import clips
from models.speech_command.learner import Clips
from models.speech_command.networks import build
from models.speech_command.params import CommandData, CommandTrain
from tests import delivered

CLIPS, BATCH, MELS = 1024, 64, 40
DELIVERED_RATE, RATE = 44_100, 16_000  # Hz: of the files, of what is learnt
WORKERS = 2
LATER_EPOCHS = 3  # epochs after the first, of which the median counts
AUGMENT = AudioAugment(shift=0, speed=0, gain_db=0, noise=0)  # SpecAugment alone, as the peer has it
RUNS = 200


def run() -> list[dict[str, Any]]:
    """Clips per second of an epoch, with SpecAugment alone and with all of ours; latency of a one-second clip."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_clips(root / "delivery")
        theirs = _median(_their_epoch, root / "delivery")
        keep_freed_memory()  # as training does; after the peer, whose processes are not to have it
        clips = _open_clips(root)
        ours, all_augmentation = (_median(_our_epoch, clips, augment) for augment in (AUGMENT, AudioAugment()))
        return [
            _row("SpecAugment", ours, theirs),
            _row("SpecAugment, and of ours shift, speed, gain, noise", all_augmentation, theirs),
            *(_latency(network, root) for network in ("mel_resnet", "bc_resnet", "crnn")),
        ]


def _row(what: str, ours: float, theirs: float) -> dict[str, Any]:
    return {
        "benchmark": f"audio epoch, {what}",
        "ours": f"{CLIPS / ours:.0f} clips/s",
        "peer": f"{CLIPS / theirs:.0f} clips/s (DataLoader, {WORKERS} workers)",
        "ratio": f"{theirs / ours:.1f}",
        "target": "≥ 5",
        "note": f"{CLIPS} WAV files of 1 s, {DELIVERED_RATE} Hz, to log-mel at {RATE} Hz; both on every core",
    }


def _median(epoch: Callable[..., Iterator[torch.Tensor]], *arguments: Any) -> float:
    """Seconds of a later epoch."""
    times = []
    for _ in range(1 + LATER_EPOCHS):
        start = time.perf_counter()
        for batch in epoch(*arguments):
            assert batch.shape == (BATCH, MELS, RATE // 160)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _open_clips(root: Path) -> Clips:
    data = CommandData()
    batches = delivered.write_batches(root, load_kind("speech_command"), data, root / "delivery")
    manifest = read_manifest(batches)
    decoded = clips(manifest, batches, root, RATE, data.max_seconds, data.samples)
    return Clips(decoded, np.zeros(len(manifest), np.int64), torch.device("cpu"))


def _our_epoch(clips: Clips, augment: AudioAugment) -> Iterator[torch.Tensor]:
    mel = LogMel(RATE, MELS)
    order = np.random.default_rng(0).permutation(CLIPS)
    for batch, _ in prefetched(clips.fetch, np.array_split(order, CLIPS // BATCH)):
        yield spec_augment(mel(augment_waveform(batch, augment, RATE)), augment)


class _Items(torch.utils.data.Dataset[torch.Tensor]):
    """As tutorials write it: load, resample, MelSpectrogram, SpecAugment, one item at a time."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.rglob("*.wav"))
        self._resample = torchaudio.transforms.Resample(DELIVERED_RATE, RATE)
        self._mel = torchaudio.transforms.MelSpectrogram(RATE, 512, 400, 160, n_mels=MELS, center=False, pad=216)
        self._masks = torch.nn.Sequential(
            torchaudio.transforms.TimeMasking(15), torchaudio.transforms.FrequencyMasking(6)
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        samples, _ = soundfile.read(io.BytesIO(self._files[index].read_bytes()), dtype="float32")
        logarithm = (self._mel(self._resample(torch.from_numpy(samples))) + 1e-6).log()[:, :100]
        masked: torch.Tensor = self._masks(logarithm - logarithm.mean())
        return masked


def _their_epoch(folder: Path) -> Iterator[torch.Tensor]:
    yield from torch.utils.data.DataLoader(_Items(folder), BATCH, shuffle=True, num_workers=WORKERS)


def _latency(network: str, root: Path) -> dict[str, Any]:
    """A one-second clip on one thread: the program beside the same network in torch, eager."""
    model = build(10, RATE, CommandTrain(network=network)).eval()
    clips = torch.randint(-3000, 3000, (2, RATE), dtype=torch.int16)
    dynamic_axes = {"clips": {0: "batch"}, "logits": {0: "batch"}}
    spec = ProgramSpec("speech_command", tuple("0123456789"), {}, {}, {"clips": [1, RATE]})
    export_graph(model, {"clips": clips}, ("logits",), dynamic_axes, spec, root / network)
    program, one = Program(root / network, threads=1), clips[:1].numpy()
    torch.set_num_threads(1)
    with torch.inference_mode():
        theirs = _milliseconds(lambda: model(clips[:1]))
    ours = _milliseconds(lambda: program.run(clips=one))
    return {
        "benchmark": f"latency of {network}",
        "ours": f"{ours:.2f} ms",
        "peer": f"{theirs:.2f} ms (torch eager)",
        "ratio": f"{theirs / ours:.1f}",
        "target": "≥ 1.5, < 10 ms",
        "note": f"1 s at {RATE} Hz, one thread; real-time factor {ours / 1000:.4f}",
    }


def _milliseconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[RUNS // 10 :])


def _write_clips(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "train" / "noise").mkdir(parents=True)
    for number in range(CLIPS):
        samples = (0.1 * rng.standard_normal(DELIVERED_RATE)).astype(np.float32)
        soundfile.write(folder / "train" / "noise" / f"{number}.wav", samples, DELIVERED_RATE)


if __name__ == "__main__":
    for row in run():
        print(*(f"{name}: {value}" for name, value in row.items()), sep="\n")
