"""torchaudio's bundles as networks of speech recognition, made small: no weights are fetched."""

from pathlib import Path

import pytest
import torch

from models.common.audio.bundles import CTCBundle, load_ctc_bundle
from models.common.errors import UserError
from models.common.kind import TrainJob
from models.speech_command.networks import build as build_commands
from models.speech_command.params import CommandTrain
from models.speech_recognition import training
from models.speech_recognition.networks import build
from models.speech_recognition.params import BUILTIN_NETWORKS, SpeechData, SpeechTrain
from tests.bundles import keep_weights, shrink
from tests.hearing import ALPHABET, DATA, tensors, voices


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_BASE_10M", "HUBERT_LARGE"])
def test_a_bundle_hears_each_clip_by_itself_and_is_exported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, name)
    data = SpeechData()
    train = SpeechTrain(network=name)
    model = build(train, data.sample_rate, ALPHABET).eval()
    sounds = voices()
    with torch.inference_mode():
        together, counts = model(*tensors(sounds))
        alone, _ = model(torch.from_numpy(sounds[1])[None], torch.tensor([len(sounds[1])]))
    torch.testing.assert_close(together[1, : counts[1]], alone[0])
    job = TrainJob("m", data, train, None, tmp_path, tmp_path, tmp_path, None, {})  # type: ignore[arg-type]
    training.write_program(model, job, ALPHABET)
    assert training.parity(model, tmp_path / "program", sounds, 1) < 1e-3
    _, frames = model.train()(*tensors(sounds))
    assert frames.tolist() == counts.tolist()


def test_a_bundles_weights_come_from_torchaudio_or_the_user_is_told_which_file_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, name = shrink(monkeypatch, "WAV2VEC2_ASR_BASE_10M"), "wav2vec2_asr_base_10m"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    network = CTCBundle(name, 5, 16_000, BUILTIN_NETWORKS)
    place = tmp_path / "hub/checkpoints" / bundle._path
    with pytest.raises(UserError, match=f"put torchaudio's {bundle._path} at {place}"):
        load_ctc_bundle(network, name, ("", *ALPHABET), BUILTIN_NETWORKS)
    theirs = keep_weights(bundle, outputs=32)  # 3 of them torchaudio takes out
    load_ctc_bundle(network, name, ("", *ALPHABET), BUILTIN_NETWORKS)
    kept = [row for row in range(32) if row not in (1, 2, 3)]
    of_a = kept[bundle.get_labels().index("A")]
    torch.testing.assert_close(network.head.weight[2], theirs["aux.weight"][of_a])
    torch.testing.assert_close(network.model.state_dict()["encoder.feature_projection.projection.weight"],
                               theirs["encoder.feature_projection.projection.weight"])  # fmt: skip


@pytest.mark.parametrize("name", ["wav2vec2_base", "HUBERT_LARGE", "wav2vec2_asr_base_960h"])
def test_both_kinds_know_the_same_bundles_by_the_same_names(name: str) -> None:
    with torch.device("meta"):  # torchaudio's whole architecture, without memory for its weights
        hears = CTCBundle(name, len(ALPHABET) + 1, 16_000, BUILTIN_NETWORKS)
        commands = build_commands(3, 16_000, CommandTrain(network=name))
    bodies = [{key for key in each.state_dict() if key.startswith("model.")} for each in (hears, commands)]
    assert bodies[0] == bodies[1]
    assert len(bodies[0]) > 200


def test_an_unknown_network_is_told_with_those_near_it() -> None:
    with pytest.raises(UserError, match=r"Unknown network 'WAV2VEC_BASE'\. Did you mean: wav2vec2_base"):
        build(SpeechTrain(network="WAV2VEC_BASE"), SpeechData().sample_rate, ALPHABET)
    with pytest.raises(UserError, match="takes sound of 16000 Hz, not 8000"):
        build(SpeechTrain(network="WAV2VEC2_BASE"), DATA.sample_rate, ALPHABET)
