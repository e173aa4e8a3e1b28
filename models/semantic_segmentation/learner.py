"""What learns to name every pixel: network, augmentation and loss."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.data.decoded_cache import Decoded
from models.common.image.augmentation import color_jitter, random_resized_crop, random_tint
from models.common.image.normalisation import Normalised
from models.common.segmentation.class_maps import IGNORE_INDEX
from models.common.training.device_arrays import DeviceArrays
from models.common.training.freezing import LayerGroup
from models.semantic_segmentation.params import Augment, SegmentationTrain

AUXILIARY = 0.4  # weight of auxiliary logits' loss (PSPNet, Zhao et al. 2017)
EVALUATION_PIXELS = 2**19  # pixels of validation pictures at a time
Batch = tuple[Tensor, Tensor]  # pictures (N, H, W, 3) and masks (N, H, W), uint8


class Segmenter(nn.Module):
    """What is exported: pictures (N, H, W, 3) uint8 -> class maps (N, H, W) uint8, mean confidence (N,)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.logits = Normalised(network)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(pictures)
        confidence = torch.softmax(logits, 1).amax(1).mean((1, 2))
        return logits.argmax(1).to(torch.uint8), confidence


class Scenes:
    """Pictures and masks, by position."""

    def __init__(self, photos: Decoded, class_maps: Decoded, device: torch.device) -> None:
        self._arrays = DeviceArrays([photos, class_maps], device)

    def __len__(self) -> int:
        return len(self._arrays)

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those pictures and masks, on the device; at least two, which BatchNorm over one value a channel needs."""
        pictures, class_maps = self._arrays.fetch(np.resize(positions, max(2, len(positions))))
        return pictures, class_maps


class SegmentationLearner:
    """A Learner (models/common/training/loop.py) of masks."""

    def __init__(
        self,
        network: nn.Module,
        groups: list[LayerGroup],
        scenes: Scenes,
        val: Scenes,
        train: SegmentationTrain,
        shares: NDArray[np.float64],
    ) -> None:
        """`shares`: of the training pixels, of each class; what weights are made from."""
        self.network, self.groups = network, groups
        self.examples = len(scenes)
        self.validation_examples = len(val)
        self._scenes, self._val, self._train = scenes, val, train
        self._classes = len(shares)
        device = next(network.parameters()).device
        self._model = Normalised(network).to(device)
        self._weights = torch.tensor(class_weights(train.class_weights, shares), dtype=torch.float32, device=device)
        self._format = torch.channels_last if train.channels_last else torch.contiguous_format
        network.to(memory_format=self._format)
        if train.compile:
            network.compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training pictures and masks, as they were decoded."""
        return self._scenes.fetch(positions)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of an augmented batch, and Dice where asked for; void pixels count nothing."""
        pictures, classes = augmented(*batch, self._train.augment)
        inputs = self._model.normalise(pictures).contiguous(memory_format=self._format)
        return self._loss(self.network(inputs), classes)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy (unweighted), mean IoU and pixel accuracy over the validation split, at the network's size."""
        matrix = torch.zeros(self._classes, self._classes, dtype=torch.int64)
        total = torch.zeros((), dtype=torch.float64)
        for part in np.array_split(np.arange(len(self._val)), self._parts()):
            pictures, masks = (each[: len(part)] for each in self._val.fetch(part))
            logits, classes = self._model(pictures).float(), masks.long()
            total += F.cross_entropy(logits, classes, ignore_index=IGNORE_INDEX, reduction="sum").double().cpu()
            matrix += confusion_matrix(logits.argmax(1), classes, self._classes).cpu()
        pixels = max(1, int(matrix.sum()))
        return {
            "val_loss": float(total) / pixels,
            "val_mean_iou": mean_iou(matrix),
            "val_pixel_accuracy": int(matrix.diagonal().sum()) / pixels,
        }

    def exportable(self) -> Segmenter:
        """The network behind its own normalisation, on the CPU: uint8 pictures in, class maps out."""
        self.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return Segmenter(self.network).eval()

    def _parts(self) -> int:
        height, width = self._val.fetch(np.zeros(1, np.int64))[1].shape[1:]
        return -(-len(self._val) * height * width // EVALUATION_PIXELS) if len(self._val) else 1

    def _loss(self, outputs: Any, classes: Tensor) -> Tensor:
        if not isinstance(outputs, Tensor):
            main, *auxiliary = outputs
            return self._loss(main, classes) + AUXILIARY * sum(self._loss(each, classes) for each in auxiliary)
        smoothing = self._train.label_smoothing
        total = F.cross_entropy(
            outputs.float(),
            classes,
            self._weights,
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=smoothing,
        )
        counted = torch.bincount(classes.flatten(), minlength=IGNORE_INDEX + 1)[: self._classes]
        loss = total / (counted * self._weights).sum().clamp(min=1)  # a batch may be void all over
        return loss + self._train.dice * dice(outputs.float(), classes) if self._train.dice else loss


def augmented(pictures: Tensor, class_maps: Tensor, augment: Augment) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) and (N, H, W) uint8 -> (N, h, w, 3) float in 0..255 and (N, h, w) int64; h and w of the crop."""
    height, width = class_maps.shape[1:]
    crop = augment.crop or (width, height)
    cropped, classes = random_resized_crop(
        pictures, class_maps, crop, augment.scale, augment.horizontal_flip, IGNORE_INDEX
    )
    cropped = color_jitter(cropped, augment.brightness, augment.contrast)
    return random_tint(cropped, augment.tint).permute(0, 2, 3, 1), classes


def class_weights(policy: str, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """One per class. inverse_log: 1 / ln(1.02 + share), from 1.4 to 50 (ENet, Paszke et al. 2016)."""
    return 1 / np.log(1.02 + shares) if policy == "inverse_log" else np.ones(len(shares))


def dice(logits: Tensor, classes: Tensor) -> Tensor:
    """1 - mean over classes of 2 |A and B| / (|A| + |B|), in probabilities (V-Net, Milletari et al. 2016).

    Of a whole batch, of the classes in it; void pixels are left out.
    """
    counted = classes != IGNORE_INDEX
    class_count = logits.shape[1]
    probabilities = torch.softmax(logits, 1) * counted[:, None]
    known = classes.masked_fill(~counted, 0)
    true_probabilities = probabilities.gather(1, known[:, None])[:, 0]  # 0 where void
    intersection = torch.zeros(class_count, device=logits.device).index_add(
        0, known.flatten(), true_probabilities.flatten()
    )
    size = torch.bincount(classes.flatten(), minlength=IGNORE_INDEX + 1)[:class_count]
    scores = 2 * intersection / (probabilities.sum((0, 2, 3)) + size).clamp(min=1)
    present = size > 0
    return 1 - (scores * present).sum() / present.sum().clamp(min=1)


def confusion_matrix(predicted: Tensor, classes: Tensor, class_count: int) -> Tensor:
    """(number, number) pixels by true class (rows) and found class; void left out."""
    counted = classes != IGNORE_INDEX
    return torch.bincount(classes[counted] * class_count + predicted[counted], minlength=class_count**2).view(
        class_count, class_count
    )


def mean_iou(matrix: Tensor) -> float:
    """Mean over the classes that occur of intersection over union."""
    intersection = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - intersection
    present = union > 0
    return float((intersection[present] / union[present]).mean()) if present.any() else 0.0
