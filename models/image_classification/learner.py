"""What learns to tell pictures apart: network, augmentation and loss."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.data.decoded_cache import Decoded
from models.common.image.augmentation import color_jitter, random_affine, random_erasing, random_shift_flip
from models.common.image.normalisation import Normalised
from models.common.training.freezing import LayerGroup
from models.image_classification.params import ImageTrain

AUXILIARY = 0.3  # weight of auxiliary logits' loss (GoogLeNet, Szegedy et al. 2014)
MAX_MEMORY_SHARE = 0.4  # share of a GPU's free memory that the pictures may take; else they travel batch by batch
Batch = tuple[Tensor, Tensor]  # pictures (N, S, S, 3) uint8, classes (N,) int64


class Photos:
    """Pictures and their classes, by position: on the device as a whole where that is a GPU with room for them."""

    def __init__(self, pixels: Decoded, classes: NDArray[np.int64], device: torch.device) -> None:
        self._pixels, self._device = pixels, device
        self._classes = torch.tensor(classes)
        self._on_device = self._upload() if self._fits() else None

    def __len__(self) -> int:
        return len(self._pixels)

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those pictures and classes, on the device."""
        index = torch.from_numpy(positions)
        if self._on_device is not None:
            pictures, classes = self._on_device
            device_index = index.to(self._device, non_blocking=True)
            return pictures[device_index], classes[device_index]
        fetched = torch.from_numpy(self._pixels.take(positions)), self._classes[index]
        if self._device.type != "cuda":
            return fetched
        return (
            fetched[0].pin_memory().to(self._device, non_blocking=True),
            fetched[1].pin_memory().to(self._device, non_blocking=True),
        )

    def _fits(self) -> bool:
        if self._device.type != "cuda" or not len(self):
            return False
        free, _ = torch.cuda.mem_get_info(self._device)
        return len(self) * int(np.prod(self._pixels.shape)) < MAX_MEMORY_SHARE * free

    def _upload(self) -> Batch:
        pictures = torch.empty((len(self), *self._pixels.shape), dtype=torch.uint8, device=self._device)
        for part in np.array_split(np.arange(len(self)), -(-len(self) // 1024)):
            pictures[part[0] : part[-1] + 1] = torch.from_numpy(self._pixels.take(part)).to(self._device)
        return pictures, self._classes.to(self._device)


class ImageLearner:
    """A Learner (models/common/training/loop.py) of pictures."""

    def __init__(
        self, network: nn.Module, groups: list[LayerGroup], photos: Photos, val: Photos, train: ImageTrain
    ) -> None:
        self.network, self.groups = network, groups
        self.examples = len(photos)
        self._photos, self._val, self._train = photos, val, train
        self._model = Normalised(network).to(next(network.parameters()).device)
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
        if not self._train.mixup:
            return self._loss(self.network(inputs), classes)
        share = float(torch.distributions.Beta(self._train.mixup, self._train.mixup).sample())
        other = torch.randperm(len(classes), device=classes.device)
        outputs = self.network(mixup(inputs, other, share))
        return share * self._loss(outputs, classes) + (1 - share) * self._loss(outputs, classes[other])

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy (unsmoothed) and accuracy over the validation split."""
        total = torch.zeros(2, dtype=torch.float64)
        for part in np.array_split(np.arange(len(self._val)), -(-len(self._val) // self._train.batch_size)):
            pictures, classes = self._val.fetch(part)
            logits = self._model(pictures).float()
            loss = F.cross_entropy(logits, classes, reduction="sum")
            total += torch.stack([loss, (logits.argmax(1) == classes).sum()]).double().cpu()
        loss, correct = (total / len(self._val)).tolist()
        return {"val_loss": loss, "val_accuracy": correct}

    def exportable(self) -> nn.Module:
        """The network behind its own normalisation, on the CPU: uint8 pictures in, logits out."""
        self.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return Normalised(self.network).eval()

    def _augmented(self, pictures: Tensor) -> Tensor:
        augment = self._train.augment
        batch = random_shift_flip(pictures, augment.crop, augment.horizontal_flip).permute(0, 3, 1, 2).float()
        batch = random_affine(batch, augment.scale, augment.rotate)
        batch = color_jitter(batch, augment.brightness, augment.contrast)
        batch = self._model.normalise(batch.permute(0, 2, 3, 1))
        return random_erasing(batch, augment.erase).contiguous(memory_format=self._format)

    def _loss(self, outputs: Any, classes: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return F.cross_entropy(outputs.float(), classes, label_smoothing=self._train.label_smoothing)
        main, *auxiliary = outputs
        extra = sum((self._loss(logits, classes) for logits in auxiliary if logits is not None), torch.zeros(()))
        return self._loss(main, classes) + AUXILIARY * extra


def mixup(inputs: Tensor, other: Tensor, share: float) -> Tensor:
    """`share` of each picture and the rest of another one (mixup, Zhang et al. 2018)."""
    return share * inputs + (1 - share) * inputs[other]
