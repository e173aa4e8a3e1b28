"""What learns to tell pictures apart: network, augmentation and loss."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.backbones.pretrained import Origin
from models.common.classification.frozen import Examples
from models.common.classification.learning import class_validation, mixup_loss
from models.common.data.decoded_cache import Decoded
from models.common.image.augmentation import augment_pictures
from models.common.image.normalisation import Normalised
from models.common.training.device_arrays import DeviceArrays
from models.common.training.freezing import LayerGroup
from models.image_classification.params import ImageTrain

AUXILIARY = 0.3  # weight of auxiliary logits' loss (GoogLeNet, Szegedy et al. 2014)
Batch = tuple[Tensor, Tensor]  # pictures (N, S, S, 3) uint8, classes (N,) int64


class Photos:
    """Pictures and their classes, by position."""

    def __init__(self, pixels: Decoded, classes: NDArray[np.int64], device: torch.device) -> None:
        self._pictures = DeviceArrays([pixels], device)
        self.classes = torch.tensor(classes, device=device)

    def __len__(self) -> int:
        return len(self._pictures)

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those pictures and classes, on the device."""
        (pictures,) = self._pictures.fetch(positions)
        index = torch.from_numpy(positions).to(self.classes.device, non_blocking=True)
        return pictures, self.classes[index]


class ImageLearner:
    """A Learner (models/common/training/loop.py) of pictures."""

    def __init__(
        self,
        model: Normalised,
        groups: list[LayerGroup],
        photos: Photos,
        val: Photos,
        train: ImageTrain,
        origin: Origin | None = None,
    ) -> None:
        """model: the network behind its normalisation; origin: of the weights that it starts from."""
        network = model.network
        self.network, self.groups, self.origin = network, groups, origin
        self.examples = len(photos)
        self.validation_examples = len(val)
        self._photos, self._val, self._train = photos, val, train
        self._model = model.to(next(network.parameters()).device)
        self._format = torch.channels_last if train.channels_last else torch.contiguous_format
        network.to(memory_format=self._format)
        if train.compile:
            network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training pictures, as they were decoded, and their classes."""
        return self._photos.fetch(positions)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of an augmented, mixed-up batch, with smoothed labels."""
        pictures, classes = batch
        inputs = self._augmented(pictures)
        return mixup_loss(inputs, classes, self._train.mixup, self.network, self.class_loss)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy (unsmoothed) and accuracy over the validation split."""
        parts = np.array_split(np.arange(len(self._val)), -(-len(self._val) // self._train.batch_size))
        batches = map(self._val.fetch, parts)
        return class_validation((self._model(pictures), classes) for pictures, classes in batches)

    def examples_of(self, split: str) -> Examples:
        """A split's examples as a head alone learns from them."""
        photos = self._photos if split == "train" else self._val

        def run(positions: NDArray[np.int64], varied: bool) -> object:
            pictures, _ = photos.fetch(positions)
            return self.network(self._augmented(pictures)) if varied else self._model(pictures)

        return Examples(run, photos.classes)

    def exportable(self) -> nn.Module:
        """The network behind its own normalisation, on the CPU: uint8 pictures in, logits out."""
        self.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return self._model.to("cpu").eval()

    def _augmented(self, pictures: Tensor) -> Tensor:
        batch = augment_pictures(pictures, self._train.augment, self._model.normalise)
        return batch.contiguous(memory_format=self._format)

    def class_loss(self, outputs: Any, classes: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return F.cross_entropy(outputs.float(), classes, label_smoothing=self._train.label_smoothing)
        main, *auxiliary = outputs
        extra = sum((self.class_loss(logits, classes) for logits in auxiliary if logits is not None), torch.zeros(()))
        return self.class_loss(main, classes) + AUXILIARY * extra
