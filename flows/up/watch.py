"""Notices what is new for a model: what was committed here or, in a shared project, what anyone pushed."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.up.deployments import revision
from flows.up.place import write_json
from models.common.errors import RatchetError, UserError
from tasks.project.fingerprint import find_local_judgement, models_at, read_inputs, resolve
from tasks.project.paths import home
from tasks.project.repository import current_branch, git, git_remote, is_shared


@dataclass(frozen=True)
class Finding:
    """A model whose inputs were not judged yet."""

    model: str
    commit: str
    data_version: str
    fingerprint: str


class Watch(threading.Thread):
    """Looks every `seconds`, and at once after `look_now`. Each finding is told once, also after a restart."""

    def __init__(self, root: Path, seconds: float, found: Callable[[Finding], None], say: Callable[[str], None]):
        super().__init__(name="watch", daemon=True)
        self._root, self._seconds, self._found, self._say = root, seconds, found, say
        self._wake, self._ending = threading.Event(), False
        self._problem = ""

    def look_now(self) -> None:
        """Something was added or removed here."""
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread after the look that is going on."""
        self._ending = True
        self._wake.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._ending:
            self._wake.clear()
            try:
                for finding in look(self._root):
                    self._found(finding)
                self._problem = ""
            except RatchetError as error:
                if str(error) != self._problem:  # said once, not every minute
                    self._problem = str(error)
                    self._say(f"cannot look for new data: {error}")
            self._wake.wait(self._seconds)


def look(root: Path) -> list[Finding]:
    """What is new since the last look. RatchetError where the remote does not answer."""
    told = _read(root)
    tip = _tip(root)
    if told.get("tip") == tip:
        return []
    commit = resolve(root, revision(root))
    findings = [finding for model in models_at(root, commit) if (finding := _finding(root, model, commit))]
    seen = told.get("fingerprints", {})
    fresh = [finding for finding in findings if seen.get(finding.model) != finding.fingerprint]
    write_json(_file(root), {"tip": tip, "fingerprints": seen | {new.model: new.fingerprint for new in fresh}})
    return fresh


def _tip(root: Path) -> str:
    """The commit that a run would take, asked as cheaply as can be: one `ls-remote` in a shared project."""
    if not is_shared(root):
        return git(root, "rev-parse", "HEAD")
    listing = git(root, "ls-remote", str(git_remote(root)), f"refs/heads/{current_branch(root)}")
    if not listing:
        raise UserError(f"'{git_remote(root)}' has no branch {current_branch(root)} yet; push it: git push")
    return listing.split()[0]


def _finding(root: Path, model: str, commit: str) -> Finding | None:
    try:
        inputs = read_inputs(root, model, commit)
    except UserError:  # no data yet
        return None
    if find_local_judgement(root, model, inputs.fingerprint):
        return None
    return Finding(model, commit, inputs.data_version, inputs.fingerprint)


def _read(root: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_file(root).read_text())
    except (OSError, ValueError):
        return {}
    return content


def _file(root: Path) -> Path:
    return home(root) / "up" / "seen.json"
