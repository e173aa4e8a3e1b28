"""One training step of ResNet-18 at 64 px, batches of 64: ours beside torchvision's reference recipe written plainly.

Both start from the same weights and see the same batches with SGD and Nesterov momentum; theirs is
references/classification/train.py (`--opt sgd_nesterov --norm-weight-decay 0 --bias-weight-decay 0`), given its input
as floats already; ours also turns uint8 into floats. Each has a process of its own, and they take turns step by step,
so that a busy machine slows both.
"""

import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from models.common.backbones.classifiers import Backbone
from models.common.data.decoded_cache import Decoded
from models.common.image.normalisation import Normalised
from models.common.image.params import ImageAugment
from models.common.training.freezing import layer_groups
from models.common.training.loop import precision, update
from models.common.training.memory import keep_freed_memory
from models.common.training.optimizers import build_optimizer
from models.image_classification.learner import ImageLearner, Photos
from models.image_classification.params import ImageTrain

SIZE, BATCH, BATCHES, STEPS, WARMUP = 64, 64, 8, 24, 4
TRAIN = ImageTrain(
    network="resnet18",
    optimizer="sgd",
    learning_rate=0.005,
    weight_decay=1e-4,
    max_grad_norm=0,
    augment=ImageAugment(crop=0),
)
Step = Callable[[int], float]  # number of the batch -> loss


def run() -> list[dict[str, Any]]:
    """Median seconds of a step, and how far the loss curves part."""
    losses, seconds = _run_alternately()
    ours, theirs = (statistics.median(each[WARMUP:]) for each in seconds)
    deviation = max(abs(mine - other) for mine, other in zip(*losses, strict=True)) / losses[1][0]
    precision_name = precision(TRAIN, _device())
    curve = f"loss {losses[1][0]:.2f} → {losses[1][-1]:.2f} in {STEPS} steps, curves apart by at most {deviation:.1%}"
    return [
        {
            "benchmark": f"training step, ResNet-18, {SIZE} px, batch {BATCH}, {_device().type}",
            "ours": f"{ours * 1e3:.0f} ms",
            "peer": f"{theirs * 1e3:.0f} ms (torchvision's reference loop)",
            "ratio": f"{theirs / ours:.2f}",
            "target": "≥ 1.3",
            "note": f"{precision_name}, channels last; {curve} of the first loss",
        }
    ]


def _run_alternately() -> tuple[list[list[float]], list[list[float]]]:
    context = torch.multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for make in (_ours, _plain):
        parent, child = context.Pipe()
        processes.append(context.Process(target=_serve, args=(make, child), daemon=True))
        processes[-1].start()
        pipes.append(parent)
    losses: list[list[float]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for number in range(STEPS):
        for index, pipe in enumerate(pipes):
            pipe.send(number)
            loss, elapsed = pipe.recv()
            losses[index].append(loss)
            seconds[index].append(elapsed)
    for process in processes:
        process.terminate()
    return losses, seconds


def _serve(make: Callable[[nn.Module, Photos], Step], pipe: Connection) -> None:
    torch.manual_seed(0)
    network = Backbone("resnet18", SIZE).build(10).to(_device())
    photos = Photos(cast(Decoded, _Coloured(BATCH * BATCHES)), np.arange(BATCH * BATCHES) % 10, _device())
    step_on = make(network, photos)
    while True:
        number = pipe.recv()
        start = time.perf_counter()
        loss = step_on(number)
        pipe.send((loss, time.perf_counter() - start))


class _Coloured:
    """Pictures of noise, each class with a faint tint of its own: something that a network can learn."""

    shape = (SIZE, SIZE, 3)

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        tint = rng.integers(0, 24, (10, 1, 1, 3))
        self._pictures = (rng.integers(0, 128, (count, *self.shape)) + tint[np.arange(count) % 10]).astype(np.uint8)

    def __len__(self) -> int:
        return len(self._pictures)

    def take(self, positions: Any) -> Any:
        return self._pictures[positions]


def _ours(network: nn.Module, photos: Photos) -> Step:
    keep_freed_memory()
    groups = layer_groups(network, Backbone("resnet18", SIZE).head(network))
    learner = ImageLearner(Normalised(network), groups, photos, photos, TRAIN)
    optimizer = build_optimizer(groups, TRAIN)
    parameters = list(network.parameters())
    bf16 = precision(TRAIN, _device()) == "bf16"
    network.train()

    def step_on(number: int) -> float:
        batch = learner.fetch(_positions(number))
        with torch.autocast(_device().type, torch.bfloat16, enabled=bf16):
            loss = learner.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        update(parameters, optimizer, TRAIN.max_grad_norm)
        return loss.item()

    return step_on


def _plain(network: nn.Module, photos: Photos) -> Step:
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": TRAIN.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=TRAIN.learning_rate, momentum=TRAIN.momentum, nesterov=True)
    criterion = nn.CrossEntropyLoss()
    normalise = Normalised(nn.Identity()).to(_device()).normalise
    fetched = [photos.fetch(_positions(number)) for number in range(BATCHES)]
    batches = [(normalise(pictures.float()).contiguous(), classes) for pictures, classes in fetched]
    network.train()

    def step_on(number: int) -> float:
        image, target = batches[number % BATCHES]
        output = network(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        (output.topk(5, 1).indices.t() == target).float().sum()  # the accuracy that its logger shows
        return float(loss.item())

    return step_on


def _positions(number: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(BATCH, dtype=np.int64) + BATCH * (number % BATCHES)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    for row in run():
        print(*(f"{name}: {value}" for name, value in row.items()), sep="\n")
