"""Keeps `add` and `remove` safe: nothing half-done is left by one that was killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tasks.project import repository
from tasks.project.outputs import is_cached
from tasks.project.paths import home


def finish_interrupted(root: Path, folder: Path) -> list[str]:
    """Commits a batch that an earlier, killed add had finished but not committed; clears one that was not finished."""
    if not folder.exists():
        return []
    untracked = repository.git(root, "ls-files", "--others", "--", f"{folder}")
    staged = repository.git(root, "diff", "--cached", "--name-only", "--diff-filter=A", "--relative", "--", f"{folder}")
    uncommitted = {root / name for name in (*untracked.splitlines(), *staged.splitlines())}
    notes = []
    for index in sorted(path for path in uncommitted if path.suffix == ".index"):
        pointer = index.with_suffix(".parquet.dvc")
        if pointer in uncommitted and _is_whole(root, pointer):
            paths = [pointer, index, folder / ".gitignore"]
            repository.commit(root, paths, f"Add {index.stem} to {folder.name}, after an interruption")
            notes.append(f"{index.stem}, which an interrupted add had left, is committed now")
        else:
            repository.git(root, "rm", "--cached", "--quiet", "--ignore-unmatch", "--", str(index), str(pointer))
            for path in (index, pointer, index.with_suffix(".parquet")):
                path.unlink(missing_ok=True)
    return notes


def _is_whole(root: Path, pointer: Path) -> bool:
    """Whether a pointer was written to its end, and the bytes that it names are in the cache."""
    try:
        return is_cached(root, str(yaml.safe_load(pointer.read_text())["outs"][0]["md5"]))
    except (yaml.YAMLError, TypeError, KeyError, IndexError):
        return False


@contextmanager
def removal_that_can_be_taken_back(root: Path, folder: Path, batch: str) -> Iterator[None]:
    """Within the block a batch is removed; whoever comes next takes that back if it was killed before its commit."""
    marker = _removal_marker(root, folder)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(batch)
    try:
        yield
    except BaseException:  # also Ctrl-C
        take_back_interrupted_removal(root, folder)
        raise
    marker.unlink(missing_ok=True)


def take_back_interrupted_removal(root: Path, folder: Path) -> list[str]:
    """Puts back the pointers of a batch that a removal had deleted and not committed."""
    marker = _removal_marker(root, folder)
    if not marker.exists():
        return []
    batch, notes = marker.read_text(), []
    names = [f"{folder.relative_to(root)}/{batch}{suffix}" for suffix in (".parquet.dvc", ".index")]
    if batch and repository.git(root, "ls-tree", "--name-only", "HEAD", "--", *names):
        repository.git(root, "checkout", "HEAD", "--", *names)
        notes = [f"An interrupted removal of {batch} was taken back; again: ratchet remove {folder.name} {batch}"]
    marker.unlink()
    return notes


def _removal_marker(root: Path, folder: Path) -> Path:
    return home(root) / "removing" / folder.name
