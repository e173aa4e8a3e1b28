"""params.yaml: what is refused, with which message; docs/params.md names every key with its default."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from models.common.errors import UserError
from models.common.kind import known_kinds, load_kind
from models.common.params import DataParams, TrainParams
from models.image_classification.params import ImageData, ImageTrain
from tasks.project.params import load_model
from tasks.project.policy import Gate, Schedule, Serve
from tasks.retention.policy import Retention

CODE = Path(__file__).parent.parent
GOOD = "models: {m1: {kind: image_classification, data: {}, train: {}, gate: {}}}"


def _refusal(tmp_path: Path, text: str, model: str = "m1") -> str:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_empty_sections_take_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(GOOD)
    model = load_model(tmp_path, "m1")
    assert (model.train, model.gate, model.data.splits.val) == (ImageTrain(), Gate(), 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train: {}", "train: {epoch: 3}"), "models.m1.train has unknown key 'epoch'. Known: augment, batch_size"),
        (
            ("train: {}", "train: {augment: {flip: 1}}"),
            "models.m1.train.augment has unknown key 'flip'. Known: brightness",
        ),
        (("gate: {}", "gate: {budgets: {ram: 1}}"), "models.m1.gate.budgets has unknown key 'ram'. Known: latency_ms"),
        (("train: {}", "train: {epochs: many}"), "models.m1.train.epochs is 'many'"),
        (("train: {}", "train: {learning_rate: -1}"), "models.m1.train.learning_rate is -1"),
        (("data: {}", "data: {splits: {val: 0.5, test: 0.5}}"), "leave nothing to train on"),
        (
            ("train: {}", "train: {network: resnet9, unfreeze: head}"),
            "freezes layers that weights: auto never trained",
        ),
        (("train: {}", "train: {network: small_cnn, weights: imagenet}"), "small_cnn has no imagenet weights"),
        (("train: {}", "train: {epochs: 2, warmup_epochs: 3}"), "warmup_epochs (3.0) must be below epochs (2)"),
        (
            ("gate: {}", "gate: {metric: beauty}"),
            "gate.metric is 'beauty'; image_classification can be judged by: accuracy",
        ),
        (("gate: {}", "gates: {}"), "models.m1 has unknown key 'gates'. Known: kind, data, train, gate"),
        ((", gate: {}", ""), "models.m1 needs gate"),
        (("image_classification", "asr"), "Unknown kind 'asr'. Known kinds: "),
        (("m1:", "M 1:"), "Unknown model 'm1'. Models in params.yaml: M 1"),
        (("models:", "model:"), "no mapping 'models:'"),
        (("{m1", "{{m1"), "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_allowed(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    assert message in _refusal(tmp_path, GOOD.replace(*change))


def test_a_model_name_that_cannot_be_a_tag_is_refused(tmp_path: Path) -> None:
    assert "must be lower-case letters" in _refusal(tmp_path, GOOD.replace("m1:", "'my model':"), "my model")


@pytest.mark.parametrize("model", ["m1", "m1-program"])
def test_two_models_that_would_share_tags_are_refused(tmp_path: Path, model: str) -> None:
    two = GOOD.replace("{m1: {", "{m1-program: {kind: image_classification, data: {}, train: {}, gate: {}}, m1: {")
    message = _refusal(tmp_path, two, model)
    assert "models 'm1' and 'm1-program' would share the git tags m1-program@" in message
    assert "rename one of them" in message


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No params\.yaml in .*Run ratchet in a Ratchet project"):
        load_model(tmp_path, "m1")


def _rows(schema: type[BaseModel], prefix: str = "") -> list[str]:
    rows = []
    for name, field in schema.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            rows += [f"| `{prefix}{name}` | |", *_rows(type(default), f"{prefix}{name}.")]
        else:
            rows.append(f"| `{prefix}{name}` | `{default}` |")
    return rows


@pytest.mark.parametrize("schema", [ImageData, ImageTrain, Gate, Serve, Schedule, Retention])
def test_the_docs_name_every_key_with_its_default(schema: type[BaseModel]) -> None:
    text = (CODE / "docs/params.md").read_text()
    assert [row for row in _rows(schema) if row not in text] == []


@pytest.mark.parametrize("name", [name for name in known_kinds() if name != "image_classification"])
def test_the_docs_name_every_key_of_a_kind_with_its_default(name: str) -> None:
    kind = load_kind(name)
    shared = {*_rows(DataParams), *_rows(TrainParams)}
    own = (CODE / "docs/params-of-kinds.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    missing = [row for row in [*_rows(kind.Data), *_rows(kind.Train)] if row not in shared and row not in own]
    assert missing == []
