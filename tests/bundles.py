"""torchaudio's own bundles, found by their own names, with networks of a few thousand weights instead of 95 million."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torchaudio import pipelines
from torchaudio.models import wav2vec2_model

SMALL = {
    "extractor_conv_layer_config": [(16, 10, 5), (16, 8, 8), (16, 4, 4), (16, 2, 2)], "encoder_embed_dim": 32,
    "encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 4, "encoder_num_layers": 2, "encoder_num_heads": 4,
    "encoder_ff_interm_features": 32,
}  # fmt: skip


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> Any:
    """torchaudio's table then has the small bundle under this name."""
    whole = getattr(pipelines, name)
    small = dataclasses.replace(whole, _params={**whole._params, **SMALL}, **fields)
    monkeypatch.setattr(pipelines, name, small)
    return small


def keep_weights(bundle: Any, outputs: int | None = None) -> dict[str, torch.Tensor]:
    """Puts random weights of the bundle where torchaudio keeps what it has downloaded."""
    torch.manual_seed(7)
    state = wav2vec2_model(**{**bundle._params, "aux_num_out": outputs}).state_dict()
    place = Path(torch.hub.get_dir(), "checkpoints", bundle._path)
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, place)
    return dict(state)
