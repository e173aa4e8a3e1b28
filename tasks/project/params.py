"""params.yaml, read once, checked by pydantic, frozen; every mistake is one line that says what is allowed."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from models.common.errors import UserError
from models.common.kind import Kind, load_kind
from models.common.params import DataParams, TrainParams
from tasks.project.policy import Gate, Schedule, Serve

MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")  # also a git tag, a DVC stage and a folder
PROGRAM_SUFFIX = "-program"  # how the registry tags a model's bare program
REQUIRED = ("kind", "data", "train", "gate")  # DVC must find them; each of the last three may be {}
OPTIONAL = ("serve", "schedule")
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Model:
    """One model's params, checked."""

    name: str
    kind_name: str
    kind: Kind
    data: DataParams
    train: TrainParams
    gate: Gate
    serve: Serve
    schedule: Schedule


def model_names(root: Path) -> list[str]:
    """Every model in params.yaml, without checking its section."""
    return list(_sections(root))


def load_model(root: Path, name: str) -> Model:
    """The params of one model, or UserError with one line that says what to change."""
    sections = _sections(root)
    if name not in sections:
        known = ", ".join(sections) or "none yet"
        raise UserError(
            f"Unknown model '{name}'. Models in params.yaml: {known}. Add a section models.{name} to define it."
        )
    if not MODEL_NAME.fullmatch(name):
        raise UserError(
            f"params.yaml: model name '{name}' must be lower-case letters, digits, - and _, as in 'road_signs'"
        )
    section = sections[name]
    where = f"params.yaml: models.{name}"
    if not isinstance(section, dict):
        raise UserError(f"{where} must be a mapping with the keys {', '.join(REQUIRED)}")
    _check_keys(section, where)
    kind = load_kind(str(section["kind"]))
    model = Model(
        name=name,
        kind_name=str(section["kind"]),
        kind=kind,
        data=_parse(kind.Data, section["data"], f"{where}.data"),
        train=_parse(kind.Train, section["train"], f"{where}.train"),
        gate=_parse(Gate, _with_metric(section["gate"], kind), f"{where}.gate"),
        serve=_parse(Serve, section.get("serve"), f"{where}.serve"),
        schedule=_parse(Schedule, section.get("schedule"), f"{where}.schedule"),
    )
    metrics = [metric.name for metric in kind.METRICS]
    if model.gate.metric not in metrics:
        raise UserError(
            f"{where}.gate.metric is '{model.gate.metric}'; {model.kind_name} can be judged by: {', '.join(metrics)}"
        )
    return model


def _with_metric(gate: Any, kind: Kind) -> Any:
    """What decides, where params do not say: the first of the kind's metrics."""
    return {"metric": kind.METRICS[0].name} | (gate or {}) if isinstance(gate, dict | None) else gate


def load_section(root: Path, name: str, schema: type[T]) -> T:
    """A section of params.yaml beside `models:`, for the whole project; the defaults where there is none."""
    content = _read(root)
    return _parse(schema, content.get(name) if isinstance(content, dict) else None, f"params.yaml: {name}")


def _read(root: Path) -> Any:
    path = root / "params.yaml"
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"No params.yaml in {root}. Run ratchet in a Ratchet project.") from None
    except yaml.YAMLError as error:
        raise UserError(f"params.yaml is not valid YAML: {' '.join(str(error).split())}") from None


def _sections(root: Path) -> dict[str, Any]:
    content = _read(root)
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        raise UserError("params.yaml has no mapping 'models:'; each model is a section under it")
    sections = {str(name): section for name, section in models.items()}
    _check_tags(sections)
    return sections


def _check_tags(names: Collection[str]) -> None:
    """A promotion of `x` tags its bare program as `x-program`, which must be no other model."""
    for name in names:
        if f"{name}{PROGRAM_SUFFIX}" in names:
            raise UserError(
                f"params.yaml: models '{name}' and '{name}{PROGRAM_SUFFIX}' would share the git tags"
                f" {name}{PROGRAM_SUFFIX}@…,"
                f" which a promotion of {name} makes for its ONNX program; rename one of them"
            )


def _check_keys(section: dict[str, Any], where: str) -> None:
    for key in section:
        if key not in REQUIRED + OPTIONAL:
            raise UserError(f"{where} has unknown key '{key}'. Known: {', '.join(REQUIRED + OPTIONAL)}")
    missing = [key for key in REQUIRED if key not in section]
    if missing:
        raise UserError(f"{where} needs {', '.join(missing)}; data, train and gate may be empty: {missing[-1]}: {{}}")


def _parse(schema: type[T], section: Any, where: str) -> T:
    try:
        return schema.model_validate(section or {})
    except ValidationError as error:
        raise UserError(_first_error(schema, error, where)) from None


def _first_error(schema: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        owner = ".".join([where, *parts[:-1]])
        return f"{owner} has unknown key '{parts[-1]}'. Known: {', '.join(_known_keys(schema, parts[:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    if parts:
        return f"{'.'.join([where, *parts])} is {first['input']!r}: {message}"
    return f"{where}: {message}"


def _known_keys(schema: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        annotation = schema.model_fields[name].annotation
        nested = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        schema = next(kind for kind in nested if issubclass(kind, BaseModel))
    return sorted(schema.model_fields)
