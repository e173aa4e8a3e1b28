"""Where a project's `ratchet up` is: which process, which addresses. Light: every command asks it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.common.errors import UserError
from tasks.project.locks import holder, lock_or_refuse
from tasks.project.paths import home

LOCK = "up"


@dataclass(frozen=True)
class Place:
    """A `ratchet up` that is running."""

    process_id: int
    api: str  # of its Prefect server, "http://127.0.0.1:4200/api"
    health: str  # "http://127.0.0.1:4280/health"
    since: float  # Unix time, s

    @property
    def pages(self) -> str:
        """Prefect's pages."""
        return self.api.removesuffix("/api")


def find_up(root: Path) -> Place | None:
    """The `ratchet up` of this project on this machine, or None."""
    process_id = holder(home(root), LOCK)
    if process_id is None:
        return None
    try:
        place = Place(**json.loads(_file(root).read_text()))
    except (OSError, ValueError, TypeError):  # it is just starting
        return None
    return place if place.process_id == process_id else None


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Held by the one `ratchet up` of a project. UserError that says where the first one is."""
    there = find_up(root)
    where = f": {there.pages} (process {there.process_id})" if there else ""
    try:
        with lock_or_refuse(home(root), LOCK, "busy"):
            _file(root).unlink(missing_ok=True)
            try:
                yield
            finally:
                _file(root).unlink(missing_ok=True)
    except UserError as error:
        if not str(error).startswith("busy"):
            raise
        raise UserError(f"`ratchet up` is running in this project already{where}. End it: ratchet down") from None


def publish(root: Path, place: Place) -> None:
    """Tells the other commands where it is."""
    write_json(_file(root), asdict(place))


def last_ports(root: Path) -> dict[str, int]:
    """The ports of the last time, so that bookmarks stay right."""
    try:
        return {name: int(port) for name, port in json.loads(_ports(root).read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def keep_ports(root: Path, ports: dict[str, int]) -> None:
    """For the next time."""
    write_json(_ports(root), ports)


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)


def _file(root: Path) -> Path:
    return home(root) / "up" / "place.json"


def _ports(root: Path) -> Path:
    return home(root) / "up" / "ports.json"
