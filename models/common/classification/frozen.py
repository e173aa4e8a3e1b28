"""A classifier's head learning alone, from features of its frozen backbone that were computed once.

Ten epochs of a head then cost about one pass over the data. The head is the network's own, so what it learns is there
where the rest opens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.common.classification.learning import class_validation, mixup_loss
from models.common.kind import AnyTrainJob
from models.common.training.features import FeatureStore, inputs_of
from models.common.training.freezing import LayerGroup, freeze
from models.common.training.loop import precision

Positions = NDArray[np.int64]
VIEWS = 2  # of each training example: as it is, and varied at random


@dataclass(frozen=True)
class Examples:
    """A split of a learner's examples: `run` puts some of them through the whole network, varied where asked to."""

    run: Callable[[Positions, bool], object]
    classes: Tensor  # (N,) int64


class HeadLearner:
    """A Learner (models/common/training/loop.py) of a head alone."""

    def __init__(
        self,
        head: nn.Module,
        features: list[NDArray[np.float32]],
        val: NDArray[np.float32],
        classes: tuple[Tensor, Tensor],
        mixup: float,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """features: of the training examples, (N, D) for each view. classes: of training and validation examples."""
        self.network, self._mixup, self._loss = head, mixup, loss
        self.groups = [LayerGroup((head,), tuple(head.parameters()))]
        self.examples, self.validation_examples = len(features[0]), len(val)
        self._device = classes[0].device
        self._views = torch.from_numpy(np.stack(features)).to(self._device)
        self._val = torch.from_numpy(val).to(self._device)
        self._classes, self._val_classes = classes

    def fetch(self, positions: Positions) -> tuple[Tensor, Tensor]:
        """Features of all views (V, N, D) and classes (N,)."""
        index = torch.from_numpy(positions).to(self._device)
        return self._views[:, index], self._classes[index]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Of one view of each example, by chance."""
        views, classes = batch
        which = torch.randint(len(views), classes.shape, device=classes.device)
        features = views[which, torch.arange(len(classes), device=classes.device)]
        return mixup_loss(features, classes, self._mixup, self.network, self._loss)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy and accuracy over the validation split."""
        return class_validation([(self.network(self._val), self._val_classes)])


def head_learner(
    job: AnyTrainJob,
    network: nn.Module,
    groups: list[LayerGroup],
    train: Examples,
    val: Examples,
    settings: str,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> HeadLearner | None:
    """A learner of `network`'s head, the rest frozen; None where several layers give logits.

    settings: all that the features depend on beside the weights. loss: of logits and classes.
    """
    heads = groups[-1].modules
    if len(heads) != 1:
        return None
    freeze(network, groups, 1)
    network.eval()
    device = train.classes.device
    bf16 = precision(job.train, device) == "bf16"
    store = FeatureStore.of(job.home, job.batches, network, heads[0], f"{settings} {bf16}")

    def features(split: str, examples: Examples, view: int) -> NDArray[np.float32]:
        def compute(part: Positions) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                return inputs_of(heads[0], lambda: examples.run(part, view > 0))

        return store.load(job.rows(split), view, compute)

    views = [features("train", train, view) for view in range(VIEWS)]
    classes = train.classes, val.classes
    return HeadLearner(heads[0], views, features("val", val, 0), classes, getattr(job.train, "mixup", 0.0), loss)
