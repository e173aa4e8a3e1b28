"""torchaudio's bundles as networks of speech recognition, made small: no weights are fetched."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from models.common.audio import bundles
from models.common.audio.bundles import CTCBundle, load_ctc_bundle
from models.common.errors import UserError
from models.common.kind import TrainJob
from models.speech_recognition import training
from models.speech_recognition.networks import build
from models.speech_recognition.params import OWN_NETWORKS, SpeechData, SpeechTrain
from tests.hearing import ALPHABET, DATA, tensors, voices


def small_bundle(name: str, **further: Any) -> Any:
    """torchaudio's bundle with a network of a few thousand weights."""
    bundle = bundles.find_bundle(name, ())
    layers = [(16, 10, 5), (16, 8, 8), (16, 4, 4), (16, 2, 2)]
    small = {
        "extractor_conv_layer_config": layers, "encoder_embed_dim": 32, "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 4, "encoder_num_layers": 2, "encoder_num_heads": 4, "encoder_ff_interm_features": 32,
    }  # fmt: skip
    return dataclasses.replace(bundle, _params={**bundle._params, **small, **further})


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_BASE_10M", "HUBERT_LARGE"])
def test_a_bundle_hears_each_clip_by_itself_and_is_exported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = small_bundle(name)
    monkeypatch.setattr(bundles, "find_bundle", lambda name, own: bundle)
    data = SpeechData()
    train = SpeechTrain(network=name)
    model = build(train, data.sample_rate, ALPHABET).eval()
    sounds = voices()
    with torch.inference_mode():
        together, counts = model(*tensors(sounds))
        alone, _ = model(torch.from_numpy(sounds[1])[None], torch.tensor([len(sounds[1])]))
    torch.testing.assert_close(together[1, : counts[1]], alone[0])
    job = TrainJob("m", data, train, None, tmp_path, tmp_path, tmp_path, None, {})
    training.write_program(model, job, ALPHABET)
    assert training.parity(model, tmp_path / "program", sounds, 1) < 1e-3
    _, frames = model.train()(*tensors(sounds))
    assert frames.tolist() == counts.tolist()


def test_a_bundles_weights_come_from_torchaudio_or_the_user_is_told_which_file_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = small_bundle("WAV2VEC2_ASR_BASE_10M")
    monkeypatch.setattr(bundles, "find_bundle", lambda name, own: bundle)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    network = CTCBundle("any", 5, 16_000, ())
    place = tmp_path / "checkpoints" / bundle._path
    with pytest.raises(UserError, match=f"put torchaudio's {bundle._path} at {place}"):
        load_ctc_bundle(network, "any", ("", *ALPHABET), ())
    from torchaudio.models import wav2vec2_model

    theirs = wav2vec2_model(**{**bundle._params, "aux_num_out": 32}).state_dict()  # 3 of them torchaudio takes out
    place.parent.mkdir(exist_ok=True)
    torch.save(theirs, place)
    load_ctc_bundle(network, "any", ("", *ALPHABET), ())
    kept = [row for row in range(32) if row not in (1, 2, 3)]
    of_a = kept[bundle.get_labels().index("A")]
    torch.testing.assert_close(network.head.weight[2], theirs["aux.weight"][of_a])
    torch.testing.assert_close(network.model.state_dict()["encoder.feature_projection.projection.weight"],
                               theirs["encoder.feature_projection.projection.weight"])  # fmt: skip


def test_an_unknown_network_is_told_with_those_near_it() -> None:
    with pytest.raises(UserError, match=r"Unknown network 'WAV2VEC_BASE'\. Did you mean: wav2vec2_base"):
        build(SpeechTrain(network="WAV2VEC_BASE"), 16_000, ALPHABET)
    with pytest.raises(UserError, match="hears 16000 Hz, not 8000"):
        build(SpeechTrain(network="WAV2VEC2_BASE"), DATA.sample_rate, ALPHABET)


@pytest.mark.parametrize("name", ["wav2vec2_base", "WAV2VEC2_BASE"])
def test_a_bundle_may_be_named_in_upper_or_lower_case(name: str) -> None:
    assert bundles.find_bundle(name, OWN_NETWORKS)._path == "wav2vec2_fairseq_base_ls960.pth"
