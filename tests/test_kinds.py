"""What a kind must offer is found out when it is looked up, not after hours of training."""

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import models
from models.common import kind as contract
from models.common.errors import UserError
from models.common.imports import closure, source_of
from models.common.kind import FILES, MEMBERS, OPTIONAL, known_kinds, load_kind
from models.common.params import TrainParams
from tests.conftest import CODE

TOY = CODE / "tests/toy/text_language"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the toy kind, in a folder where kinds are looked for, too."""
    monkeypatch.setattr(models, "__path__", [str(tmp_path)])
    contract._check_members.cache_clear()
    return Path(shutil.copytree(TOY, tmp_path / "text_language"))


def without(name: str) -> Callable[[str], str]:
    return lambda text: re.sub(rf"\b{name}\b", f"{name}_gone", text)


@pytest.mark.parametrize("member", sorted(set(MEMBERS) - set(OPTIONAL) - {"Data", "Train"}))
def test_a_kind_that_lacks_a_member_is_refused_by_its_file_and_name(toy: Path, member: str) -> None:
    file = toy / f"{MEMBERS[member][0]}.py"
    file.write_text(without(member)(file.read_text()))
    with pytest.raises(UserError, match=rf"models/text_language/{file.name} has no {member}\."):
        load_kind("text_language")


def test_a_kind_that_lacks_a_file_is_refused_by_name(toy: Path) -> None:
    (toy / "scoring.py").unlink()
    with pytest.raises(UserError, match=r"'text_language' has no file scoring\.py"):
        load_kind("text_language")


def test_a_function_that_takes_other_arguments_is_refused(toy: Path) -> None:
    file = toy / "scoring.py"
    file.write_text(file.read_text().replace("def score(job: ScoreJob)", "def score(program, manifest)"))
    with pytest.raises(UserError, match=r"scoring\.py: score takes 2 arguments; it must take 1"):
        load_kind("text_language")


def test_a_kind_that_cannot_be_parsed_is_refused_with_its_line(toy: Path) -> None:
    (toy / "report.py").write_text("def report(job):\n    return [\n")
    with pytest.raises(UserError, match=r"models/text_language/report\.py line 2: "):
        load_kind("text_language")


def test_the_toy_needs_nothing_optional(toy: Path) -> None:
    assert load_kind("text_language").name == "text_language"


@pytest.mark.parametrize("name", known_kinds())
def test_every_kind_has_the_same_files_and_no_others(name: str) -> None:
    found = {path.stem for path in (CODE / "models" / name).glob("*.py")}
    assert found == {"__init__", *FILES}


@pytest.mark.parametrize("name", known_kinds())
def test_a_kind_has_no_training_parameter_that_it_does_not_use(name: str) -> None:
    """Otherwise it would be accepted and silently ignored."""
    kind = load_kind(name)
    own = set(kind.Train.model_fields) - set(TrainParams.model_fields)
    modules = closure([f"models.{name}.training"])
    trees = [ast.parse(path.read_text()) for module in modules if (path := source_of(module))]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert own - read == set()


def test_a_parameter_of_another_kind_is_refused_as_unknown() -> None:
    with pytest.raises(ValueError, match="mixup"):
        load_kind("object_detection").Train(mixup=0.2)  # type: ignore[call-arg]
