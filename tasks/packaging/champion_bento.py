"""The Bento of a version, fetched to this machine once, and again where the copy was damaged since."""

import os
from pathlib import Path

from models.common.errors import UserError
from tasks.project.outputs import is_intact
from tasks.project.paths import home
from tasks.project.registry import champion, fetch, versions


def champion_bento(root: Path, model: str, version: str | None = None) -> Path:
    """The `.bento` file in production, or of the version named. UserError where there is none."""
    commit, name = _find_version(root, model, version)
    path, output = home(root) / "bentos" / "served" / f"{model}-{name}.bento", f"artifacts/{model}/{model}.bento"
    if not is_intact(root, commit, output, path):
        partial = path.with_suffix(".partial")
        fetch(root, commit, output, partial)
        partial.replace(path)
    os.utime(path)  # used today, so `ratchet gc` leaves it alone
    return path


def _find_version(root: Path, model: str, version: str | None) -> tuple[str, str]:
    current = champion(root, model)
    if version is None:
        if current is None:
            raise UserError(f"{model} has nothing in production yet. Start: ratchet retrain {model}")
        return current.commit, current.version
    commits = {name: commit for commit, name in versions(root, model).items()}
    name = f"v{version.removeprefix('v')}"
    if name not in commits:
        raise UserError(f"{model} has no version {name}. Versions: {', '.join(commits) or 'none yet'}")
    return commits[name], name
