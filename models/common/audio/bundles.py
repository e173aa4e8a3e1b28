"""torchaudio's wav2vec 2.0 and HuBERT bundles: by name, untrained or with the weights that torchaudio fetches."""

import difflib
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.common.backbones.files import checkpoints_folder
from models.common.backbones.pretrained import Origin, origin_of_file
from models.common.errors import UserError
from models.common.training.weights import load_matching_tensors


def find_bundle(name: str, builtin: Collection[str]) -> Any:
    """torchaudio's bundle called `name`, in upper or lower case; UserError with the names nearest to it where there is
    none. `builtin`: the kind's own networks, for that message."""
    from torchaudio import pipelines

    bundles = {key: getattr(pipelines, key) for key in dir(pipelines)}
    bundles = {key: value for key, value in bundles.items() if isinstance(value, pipelines.Wav2Vec2Bundle)}
    known = [key for key, bundle in bundles.items() if bundle._model_type == "Wav2Vec2"]
    if name.upper() not in known:
        suggestions = difflib.get_close_matches(
            name.upper(), [*known, *(network.upper() for network in builtin)], 4, 0.4
        )
        hint = f" Did you mean: {', '.join(suggestion.lower() for suggestion in suggestions)}?" if suggestions else ""
        raise UserError(
            f"Unknown network '{name}'.{hint} Known: {', '.join(builtin)} and torchaudio's wav2vec 2.0 and HuBERT"
            " bundles"
        )
    return bundles[name.upper()]


def bundle_model(name: str, sample_rate: int, builtin: Collection[str]) -> tuple[nn.Module, int, bool]:
    """Untrained: waves (N, T) -> (frames (N, F, size), None); its size; whether it wants waves of zero mean and unit
    deviation. UserError where there is no such bundle or it takes another sample rate."""
    from torchaudio.models import wav2vec2_model

    bundle = find_bundle(name, builtin)
    if sample_rate != bundle.sample_rate:
        raise UserError(
            f"{name} takes sound of {bundle.sample_rate:g} Hz, not {sample_rate};"
            f" set data.sample_rate: {bundle.sample_rate:g}"
        )
    params = {**bundle._params, "aux_num_out": None}
    return wav2vec2_model(**params), int(params["encoder_embed_dim"]), bool(bundle._normalize_waveform)


def load_bundle(model: nn.Module, name: str, builtin: Collection[str]) -> Origin:
    """Fills a `bundle_model` with torchaudio's weights, but for a head. UserError where they cannot be had."""
    state = {key: value for key, value in bundle_state(name, builtin).items() if not key.startswith("aux.")}
    load_matching_tensors(model, [], state, f"torchaudio's weights of {name}")
    return origin_of_file(name, "torchaudio", _place(find_bundle(name, builtin)))


def bundle_state(name: str, builtin: Collection[str]) -> dict[str, Tensor]:
    """torchaudio's weights; UserError saying which file to put where, if they cannot be downloaded."""
    bundle = find_bundle(name, builtin)
    path = _place(bundle)
    try:
        return dict(bundle._get_state_dict({"progress": False, "weights_only": True}))
    except OSError as error:  # URLError, timeouts and refused connections are OSErrors
        raise UserError(
            f"Pretrained weights of {name} could not be downloaded ({error}); put torchaudio's {bundle._path} at {path}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:80]}); delete it and run again") from None


def _place(bundle: Any) -> Path:
    return checkpoints_folder() / str(bundle._path)


class CTCBundle(nn.Module):
    """A bundle with a head of letters: samples -> logits by frame of 20 ms.

    Its normalisation and its convolution over positions see padding, so outside training each clip goes by itself.
    """

    def __init__(self, name: str, outputs: int, sample_rate: int, builtin: Collection[str]) -> None:
        """Untrained. UserError where there is no such bundle or it takes another sample rate."""
        super().__init__()
        self.model: Any  # torchaudio's Wav2Vec2Model
        self.model, size, self._normalises = bundle_model(name, sample_rate, builtin)
        self.head = nn.Linear(size, outputs)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, F, outputs) of waves (N, T), full scale 1, and how many frames of each are of the sound."""
        if self.training:
            frames, counts = self.model(self._normalised(waves, lengths), lengths)
            return self.head(frames), counts
        if len(waves) == 1:  # which is also what is exported
            frames, _ = self.model(self._normalised(waves, lengths))
            return self.head(frames), self._frames(lengths)
        outputs = [self(wave[None, : int(length)], length[None]) for wave, length in zip(waves, lengths, strict=True)]
        logits = nn.utils.rnn.pad_sequence([logits[0] for logits, _ in outputs], batch_first=True)
        return logits, torch.cat([count for _, count in outputs])

    def _normalised(self, waves: Tensor, lengths: Tensor) -> Tensor:
        if not self._normalises:
            return waves
        mask = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        count = lengths[:, None].to(waves.dtype)
        centred = (waves - (waves * mask).sum(1, keepdim=True) / count) * mask
        return centred / (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()

    def _frames(self, lengths: Tensor) -> Tensor:
        for layer in self.model.feature_extractor.conv_layers:
            lengths = torch.div(lengths - layer.kernel_size, layer.stride, rounding_mode="floor") + 1
            lengths = lengths.clamp(min=0)
        return lengths


def load_ctc_bundle(network: CTCBundle, name: str, letters: tuple[str, ...], builtin: Collection[str]) -> None:
    """Fills it with torchaudio's weights; a bundle trained on text keeps its head's rows of the letters it knows.

    letters: of the head's outputs, the blank first. UserError where the weights cannot be had.
    """
    state, bundle = bundle_state(name, builtin), find_bundle(name, builtin)
    if hasattr(bundle, "get_labels") and "aux.weight" in state:
        bundle_letters = ["", *(" " if label == "|" else label.lower() for label in bundle.get_labels()[1:])]
        head = network.head.state_dict()
        for index, letter in enumerate(letters):
            if letter.lower() in bundle_letters:
                for key in ("weight", "bias"):
                    head[key][index] = state[f"aux.{key}"][bundle_letters.index(letter.lower())]
        network.head.load_state_dict(head)
    body = {f"model.{key}": value for key, value in state.items() if not key.startswith("aux.")}
    load_matching_tensors(network, [network.head], body, f"torchaudio's weights of {name}")
