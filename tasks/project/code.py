"""The code of a commit, in a folder of its own: what is judged by it must be recorded as judged by it."""

import shutil
import tarfile
from pathlib import Path

from models.common.errors import RatchetError
from tasks.project.locks import lock
from tasks.project.paths import home
from tasks.project.repository import git

OURS = ("flows", "tasks", "models")
KEPT = 4  # commits whose code stays unpacked


def code_of(root: Path, commit: str, needed: str) -> Path:
    """A folder with flows/, tasks/ and models/ of the commit: `root` itself where its files are the same.

    `root`, too, where the commit is of a Ratchet that has no file `needed`.
    """
    if not _differs(root, commit) or not _has(root, commit, needed):
        return root
    parent = home(root) / "code"
    folder = parent / commit
    with lock(home(root), "code"):
        if not folder.exists():
            _unpack(root, commit, parent, folder)
    return folder


def _differs(root: Path, commit: str) -> bool:
    """Whether the files of `root`, as they are, are others than the commit's."""
    try:
        git(root, "diff", "--quiet", commit, "--", *OURS)
    except RatchetError:
        return True
    return bool(git(root, "ls-files", "--others", "--exclude-standard", "--", *OURS))


def _has(root: Path, commit: str, path: str) -> bool:
    return bool(git(root, "ls-tree", "--name-only", commit, "--", path))


def _unpack(root: Path, commit: str, parent: Path, folder: Path) -> None:
    partial = parent / f".{commit}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    archive = partial / "code.tar"
    git(root, "archive", "--format=tar", f"--output={archive}", commit, *OURS)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4
            tar.extractall(partial, filter="data")
        else:
            tar.extractall(partial)
    archive.unlink()
    partial.rename(folder)
    older = sorted((path for path in parent.iterdir() if path != folder), key=lambda path: path.stat().st_mtime)
    for path in older[: max(0, len(older) - KEPT + 1)]:
        shutil.rmtree(path, ignore_errors=True)
