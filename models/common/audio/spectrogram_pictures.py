"""timm's networks on log-mel spectrograms, taken for pictures of one channel, with the interface of backbones.py.

A network that sees many frames at once would see padding, too: it is held at zero before every layer that looks at
several frames, and left out of squeeze-and-excitation. Whether that was enough is tried when the network is built.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.backbones.classifiers import SIZE_ERRORS, built_for_one_size, timm_network
from models.common.backbones.names import known_network
from models.common.backbones.pretrained import Origin, pretrained, timm_with_weights
from models.common.errors import UserError

GATES = ("SqueezeExcite", "SEModule", "EffectiveSEModule")  # timm's layers that take a mean over the whole picture
PROBE_FRAMES = 96  # of the spectrogram that a network is tried with
TOLERANCE = 3e-5  # of the largest feature, that padding may change


class SpectrogramPictures(nn.Module):
    """(N, mels, F) and (N, F), 1 inside the sound and 0 in its padding -> (N, channels, F / s) and (N, F / s).

    s: how many frames become one, `stride`; the network says `channels` itself.
    """

    def __init__(self, name: str, mels: int, builtin: tuple[str, ...], *, any_length: bool) -> None:
        """Untrained. any_length: whether sounds come with padding, which must then change nothing.

        Raises UserError for an unknown name, and for a network that cannot take spectrograms, or not with padding.
        """
        super().__init__()
        known_network(name, builtin)
        if built_for_one_size(name):
            raise UserError(f"network {name} is made for pictures of one size, and sounds have many; name another")
        self.name, self._any_length = name, any_length
        self.layers: Any = timm_network(name, 0, 1, features_only=True, out_indices=(-1,))
        self.channels, self.stride = (int(each[-1]) for each in _feature_shapes(self.layers))
        self._mask: Tensor | None = None
        self._check(mels)

    def load_pretrained(self) -> Origin:
        """Fills it with ImageNet's weights, the stem's summed over the colours. UserError where they cannot be had."""
        weights = pretrained(self.name)
        filled = timm_with_weights(self.name, weights.state, 0, 1, features_only=True, out_indices=(-1,))
        self.layers.load_state_dict(filled.state_dict())
        return weights.origin

    def forward(self, spectrograms: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        spectrograms, mask = self._whole_strides(spectrograms * mask[:, None]), self._whole_strides(mask)
        self._mask = mask[:, None, None]
        (features,) = self.layers(spectrograms[:, None])
        self._mask = None
        return features.mean(2), mask[:, :: self.stride]

    def _whole_strides(self, frames: Tensor) -> Tensor:
        """Padded to a multiple of `stride` frames: then the layers' own padding is the same for every length."""
        count = (frames.shape[-1] + self.stride - 1) // self.stride * self.stride
        return F.pad(frames, (0, self.stride - 1))[..., :count]

    def _check(self, mels: int) -> None:
        self.eval()
        try:
            with torch.no_grad(), _as_if_trained(self.layers):
                if self._any_length:
                    self._hold_padding_at_zero(mels)
                difference = self._difference_by_padding(mels)
        except SIZE_ERRORS as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"network {self.name} cannot take spectrograms of {mels} mels ({reason})") from None
        self.train()
        if self._any_length and difference > TOLERANCE:
            raise UserError(
                f"network {self.name} hears padding: an answer would depend on the other sounds in its batch; name a"
                " convolutional one, such as timm/resnet18 or timm/tf_efficientnet_lite0"
            )

    def _hold_padding_at_zero(self, mels: int) -> None:
        """Gives each layer that looks at several frames a hook, with how many frames one of its own stands for."""
        wide = [layer for layer in self.layers.modules() if _sees_several_frames(layer)]
        gates = [layer for layer in self.layers.modules() if type(layer).__name__ in GATES]
        strides: dict[nn.Module, int] = {}

        def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            strides[layer] = PROBE_FRAMES // inputs[0].shape[-1]

        handles = [layer.register_forward_pre_hook(note) for layer in (*wide, *gates)]
        self(torch.zeros(1, mels, PROBE_FRAMES), torch.ones(1, PROBE_FRAMES))
        for handle in handles:
            handle.remove()
        for layer in wide:
            layer.register_forward_pre_hook(functools.partial(self._masked, strides.get(layer, 1)))
        for layer in gates:
            layer.register_forward_pre_hook(functools.partial(self._scaled_up, strides.get(layer, 1)))
            layer.register_forward_hook(functools.partial(self._scaled_down, strides.get(layer, 1)))

    def _masked(self, stride: int, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * self._mask_of(stride, inputs[0]), *inputs[1:])

    def _scaled_up(self, stride: int, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """So that a mean over all frames is one over those of the sound."""
        mask = self._mask_of(stride, inputs[0])
        return (inputs[0] * mask / mask.mean(3, keepdim=True), *inputs[1:])

    def _scaled_down(self, stride: int, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * self._mask_of(stride, output).mean(3, keepdim=True)

    def _mask_of(self, stride: int, like: Tensor) -> Tensor:
        assert self._mask is not None
        return self._mask[..., ::stride].to(like.dtype)

    def _difference_by_padding(self, mels: int) -> float:
        """By how much of the largest feature those of a sound differ when it has padding behind it."""
        generator = torch.Generator().manual_seed(0)
        sound = torch.randn(1, mels, PROBE_FRAMES, generator=generator)
        mask = torch.ones(1, PROBE_FRAMES)
        alone, _ = self(sound, mask)
        if not self._any_length:
            return 0.0
        padded, _ = self(F.pad(sound, (0, PROBE_FRAMES)), F.pad(mask, (0, PROBE_FRAMES)))
        difference = (padded[..., : alone.shape[-1]] - alone).abs().max() / alone.abs().max().clamp(min=1e-12)
        return float(difference)


@contextmanager
def _as_if_trained(layers: nn.Module) -> Iterator[None]:
    """Fresh layers turn zeros into zeros, and leave whole branches out, so they hide what padding does; while inside,
    scales and offsets are random."""
    vectors = [tensor for name, tensor in layers.state_dict().items() if _is_vector(tensor) and "var" not in name]
    before = [tensor.clone() for tensor in vectors]
    generator = torch.Generator().manual_seed(0)
    for tensor in vectors:
        tensor.copy_(1 + torch.randn(tensor.shape, generator=generator) / 2)
    try:
        yield
    finally:
        for tensor, values in zip(vectors, before, strict=True):
            tensor.copy_(values)


def _is_vector(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() == max(tensor.shape, default=0)


def _feature_shapes(layers: Any) -> tuple[list[int], list[int]]:
    """Channels and strides of what a timm network gives."""
    return layers.feature_info.channels(), layers.feature_info.reduction()


def _sees_several_frames(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return False
    size = layer.kernel_size
    return (size if isinstance(size, int) else size[-1]) > 1
