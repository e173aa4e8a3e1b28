"""torchaudio's wav2vec 2.0 and HuBERT bundles with a CTC head on our alphabet; their weights are fetched by torchaudio.

Their normalisation and their convolution over positions see padding, so outside training each clip goes by itself.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.common.audio.bundles import bundle_model, bundle_state, find_bundle
from models.common.training.weights import fill
from models.speech_recognition.params import OWN_NETWORKS


class Bundle(nn.Module):
    """Samples -> logits by frame of 20 ms."""

    def __init__(self, name: str, outputs: int, sample_rate: int) -> None:
        """Untrained. UserError where there is no such bundle or it takes another sample rate."""
        super().__init__()
        self.model, size, self._normalises = bundle_model(name, sample_rate, OWN_NETWORKS)
        self.head = nn.Linear(size, outputs)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, F, outputs) of waves (N, T), full scale 1, and how many frames of each are of the sound."""
        if self.training:
            frames, counts = self.model(self._scaled(waves, lengths), lengths)
            return self.head(frames), counts
        if len(waves) == 1:  # which is also what is exported
            frames, _ = self.model(self._scaled(waves, lengths))
            return self.head(frames), self._frames(lengths)
        each = [self(wave[None, : int(length)], length[None]) for wave, length in zip(waves, lengths, strict=True)]
        logits = nn.utils.rnn.pad_sequence([one[0] for one, _ in each], batch_first=True)
        return logits, torch.cat([count for _, count in each])

    def _scaled(self, waves: Tensor, lengths: Tensor) -> Tensor:
        if not self._normalises:
            return waves
        inside = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        count = lengths[:, None].to(waves.dtype)
        centred = (waves - (waves * inside).sum(1, keepdim=True) / count) * inside
        return centred / (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()

    def _frames(self, lengths: Tensor) -> Tensor:
        extractor: Any = self.model.feature_extractor
        for layer in extractor.conv_layers:
            lengths = torch.div(lengths - layer.kernel_size, layer.stride, rounding_mode="floor") + 1
            lengths = lengths.clamp(min=0)
        return lengths


def load_bundle(network: Bundle, name: str, letters: tuple[str, ...]) -> None:
    """Fills it with torchaudio's weights; a bundle trained on text keeps its head's rows of the letters it knows.

    letters: of the head's outputs, the blank first. UserError where the weights cannot be had.
    """
    bundle, state = find_bundle(name, OWN_NETWORKS), bundle_state(name, OWN_NETWORKS)
    if hasattr(bundle, "get_labels") and "aux.weight" in state:
        theirs = ["", *(" " if label == "|" else label.lower() for label in bundle.get_labels()[1:])]
        own = network.head.state_dict()
        for place, letter in enumerate(letters):
            if letter.lower() in theirs:
                for key in ("weight", "bias"):
                    own[key][place] = state[f"aux.{key}"][theirs.index(letter.lower())]
        network.head.load_state_dict(own)
    body = {f"model.{key}": value for key, value in state.items() if not key.startswith("aux.")}
    fill(network, [network.head], body, f"torchaudio's weights of {name}")
