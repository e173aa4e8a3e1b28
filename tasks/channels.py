"""Who is told what happens: channels, each an Apprise URL (mail, Slack, Teams, webhooks …) with a name.

They are kept in .ratchet/notify.json, readable by its owner alone, since such a URL holds a password or a token: never
in git. RATCHET_NOTIFY adds more, for containers: URLs separated by spaces. .ratchet/told.json says what was told.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.common.errors import UserError
from tasks.project.locks import lock
from tasks.project.paths import home

EVENTS = (
    "PROMOTED",
    "HELD",
    "REJECTED",
    "BLOCKED",
    "ERROR",
    "AWAITING_APPROVAL",
    "APPROVED",
    "DECLINED",
    "FORCED",
    "ROLLED_BACK",
    "WORKER_GONE",
)
VARIABLE = "RATCHET_NOTIFY"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
HOSTS = re.compile(r"https?|mailtos?|jsons?|xmls?|forms?")  # schemes whose host is a host, and no token
REMEMBERED = 1000  # of what was told; more than any run is ever retried after


@dataclass(frozen=True)
class Channel:
    """Where messages go. `only`: the events that are told there; all where it is empty."""

    name: str
    url: str = field(repr=False)
    only: tuple[str, ...] = ()

    def wants(self, event: str) -> bool:
        return not self.only or event in self.only

    @property
    def masked_url(self) -> str:
        """What may be shown: the service, and its host where that is no token."""
        scheme = self.url.partition("://")[0]
        host = urlsplit(self.url).hostname if HOSTS.fullmatch(scheme) else None
        return f"{scheme}://{host or ''}/…"

    def masked(self, text: str) -> str:
        """A text without the channel's secrets."""
        return text.replace(self.url, self.masked_url)


def channels(root: Path) -> list[Channel]:
    """Those in the file, then those of the environment. UserError where the file is damaged."""
    kept = [Channel(name, entry["url"], tuple(entry["only"])) for name, entry in _read(root).items()]
    given = os.environ.get(VARIABLE, "").split()
    return [*kept, *(Channel(f"{VARIABLE}-{number}", url) for number, url in enumerate(given, 1))]


def check_channel(name: str, only: Iterable[str]) -> None:
    """UserError for a name or an event that cannot be."""
    if not NAME.fullmatch(name):
        raise UserError(f"A channel's name is made of letters, digits, . _ and -, not '{name}'. Example: ops")
    if unknown := [event for event in only if event not in EVENTS]:
        raise UserError(f"Unknown event '{unknown[0]}'. Events: {', '.join(EVENTS)}")


def add_channel(root: Path, name: str, url: str, only: Iterable[str] = ()) -> Channel:
    """Adds a channel, or replaces the one of that name. UserError as check_channel says."""
    check_channel(name, only)
    with lock(home(root), "notify.json"):
        _write(root, _read(root) | {name: {"url": url, "only": list(only)}})
    return Channel(name, url, tuple(only))


def remove_channel(root: Path, name: str) -> None:
    """UserError where there is none of that name in the file."""
    with lock(home(root), "notify.json"):
        kept = _read(root)
        if name not in kept:
            known = ", ".join(kept) or "none; those of the environment are taken out there"
            raise UserError(f"No channel '{name}' to remove. Channels: {known}")
        _write(root, {key: entry for key, entry in kept.items() if key != name})


class Told:
    """What was told to which channel, so that nothing is told twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._entries: list[dict[str, Any]] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._entries = []  # nothing was told yet, or it was damaged: better told again than never

    def knows(self, channel: str, key: str) -> bool:
        return any((entry["channel"], entry["key"]) == (channel, key) for entry in self._entries)

    def add(self, channel: str, key: str, model: str | None, event: str) -> None:
        entry = {"channel": channel, "key": key, "model": model, "event": event, "when": int(time.time())}
        self._entries = [*self._entries, entry][-REMEMBERED:]
        self._write()

    def forget(self, model: str | None, events: Iterable[str]) -> None:
        """What is over: when it happens again, it is told again."""
        kept = [entry for entry in self._entries if entry["model"] != model or entry["event"] not in events]
        if len(kept) < len(self._entries):
            self._entries = kept
            self._write()

    def _write(self) -> None:
        _replace(self._path, json.dumps(self._entries, indent=1))


@contextmanager
def told(root: Path) -> Iterator[Told]:
    """What was told, held by this process: of two that tell the same at once, one does."""
    with lock(home(root), "told.json"):
        yield Told(home(root) / "told.json")


def _read(root: Path) -> dict[str, dict[str, Any]]:
    path = home(root) / "notify.json"
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text())
        assert all(isinstance(entry["url"], str) and isinstance(entry["only"], list) for entry in entries.values())
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path} is damaged. Remove it and add again: ratchet notify add NAME URL") from None
    return entries


def _write(root: Path, entries: dict[str, dict[str, Any]]) -> None:
    _replace(home(root) / "notify.json", json.dumps(entries, indent=2))


def _replace(path: Path, text: str) -> None:
    """Written whole or not at all, and readable by its owner alone from the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
