"""A torchvision detector with its preprocessing, as it learns, answers and is exported."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.common.image.normalisation import Normalised

Answer = dict[str, Tensor]  # boxes (D, 4) in px of the input, scores (D,), labels (D,), perhaps masks (D, S, S)
Target = dict[str, Tensor]  # boxes (M, 4) in px, labels (M,) int64 from 0, perhaps masks (M, H, W) uint8


class Detector(nn.Module):
    """Pictures (N, H, W, 3) uint8 -> what was found, labels from 0.

    first_label: the number by which the network calls our class 0: 1 where 0 is the background.
    """

    def __init__(self, network: nn.Module, first_label: int) -> None:
        super().__init__()
        self.normalised = Normalised(network)
        self.first_label = first_label

    @property
    def network(self) -> nn.Module:
        """Without its preprocessing."""
        network: nn.Module = self.normalised.network
        return network

    def forward(self, pictures: Tensor) -> list[Answer]:
        """An answer for each picture, the surest objects first."""
        answers: list[Answer] = self.normalised(pictures)
        return [self._relabelled(each) for each in answers]

    def losses(self, inputs: Tensor, targets: Sequence[Target]) -> Tensor:
        """The network's losses, summed. inputs: (N, 3, H, W), scaled."""
        shifted = [each | {"labels": each["labels"] + self.first_label} for each in targets]
        parts: dict[str, Tensor] = self.network(inputs, shifted)
        return torch.stack([part.float() for part in parts.values()]).sum()

    def normalise(self, pictures: Tensor) -> Tensor:
        """(N, H, W, 3) float in 0..255 -> (N, 3, H, W) with the mean and deviation that the network is used to."""
        return self.normalised.normalise(pictures)

    def _relabelled(self, answer: Answer) -> Answer:
        masks = {"masks": answer["masks"][:, 0]} if "masks" in answer else {}  # torchvision gives them one channel
        return answer | {"labels": answer["labels"] - self.first_label} | masks


class SinglePicture(nn.Module):
    """A detector for one picture at a time, as it is exported: (1, H, W, 3) uint8 -> `outputs`, in their order."""

    def __init__(self, detector: Detector, outputs: Sequence[str]) -> None:
        super().__init__()
        self.detector, self.outputs = detector, tuple(outputs)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """What an answer has of these names."""
        answer = self.detector(pictures)[0]
        return tuple(answer[name] for name in self.outputs)
