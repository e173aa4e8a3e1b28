"""The DVC cache: which of its files a dropped candidate names and nobody else, and DVC's notes on what ran (run cache).

DVC finds by itself that an output is gone, and runs its stage again.
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.retention.garbage import Garbage, disk_usage, garbage, is_older, read_text, remove
from tasks.retention.references import NAMED

OWN_COMMAND = re.compile(r"^cmd: python -m tasks\.\w+ (\S+)$", re.MULTILINE)
TEMPORARY = re.compile(r"\.[\w-]{22}\.tmp")  # what DVC writes to before it renames


@dataclass(frozen=True)
class Note:
    """One file of the run cache: a stage of Ratchet's ran, and this is what it made."""

    path: Path
    model: str
    outputs: frozenset[str]  # MD5


def object_path(cache: Path, digest: str) -> Path:
    """Where the cache keeps the bytes of an MD5."""
    return cache / "files/md5" / digest[:2] / digest[2:]


def with_contents(cache: Path, digests: Iterable[str]) -> set[str]:
    """These, and what the folders among them hold, as far as the cache has their lists."""
    found = set(digests)
    for digest in [each for each in found if each.endswith(".dir")]:
        found |= _entries(object_path(cache, digest))
    return found


def unneeded(
    cache: Path, wanted: Iterable[tuple[str, str, str, Collection[str]]], kept: Collection[str]
) -> list[Garbage]:
    """Of (model, name, category, MD5s) the files that are there and not kept, each once; a folder's list comes last.

    So whoever is killed in between leaves a list by which the rest is found.
    """
    seen = set(kept)
    found = []
    for model, name, category, digests in wanted:
        own = sorted(with_contents(cache, digests) - seen, key=lambda digest: (digest.endswith(".dir"), digest))
        seen |= set(own)
        paths = tuple(path for digest in own if (path := object_path(cache, digest)).exists())
        if paths:
            found.append(Garbage(category, model, name, paths, sum(map(disk_usage, paths))))
    return found


def notes(cache: Path) -> list[Note]:
    """Every note in the run cache on a stage of Ratchet's."""
    found = []
    for path in (cache / "runs").glob("*/*/*"):
        text = read_text(path)
        if command := OWN_COMMAND.search(text):
            outputs = frozenset(match["md5"] for match in NAMED.finditer(text.partition("\nouts:")[2]))
            found.append(Note(path, command[1], outputs))
    return found


def abandoned(found: Iterable[Note], named: Collection[str], days: float) -> list[Note]:
    """Notes on runs that were killed or ended in an error: older than `days`, and no candidate names what they made."""
    return [note for note in found if not note.outputs & set(named) and is_older(note.path, days)]


def is_useless(cache: Path, note: Note, kept: Collection[str], gone: Collection[Path]) -> bool:
    """Whether something that a note names is gone, or about to go, and no remote can have it."""
    paths = [object_path(cache, digest) for digest in note.outputs - set(kept)]
    return any(path in gone or not path.exists() for path in paths)


def forget(stale: Iterable[Note]) -> None:
    """Deletes notes. DVC fails where a folder of notes is there and empty, so the folder goes as one with its last."""
    groups: dict[Path, set[Path]] = {}
    for note in stale:
        groups.setdefault(note.path.parent, set()).add(note.path)
    for folder, paths in groups.items():
        if paths == set(folder.iterdir()):
            aside = folder.with_name(f".removing-{folder.name}")
            folder.rename(aside)
            remove([aside])
        else:
            remove(paths)


def temporary_files(cache: Path) -> list[Garbage]:
    """What a killed DVC was writing, older than a day."""
    found = (path for path in (cache / "files/md5").glob("*/.*.tmp") if TEMPORARY.fullmatch(path.name))
    return [garbage("left-overs", "", path) for path in found if is_older(path, days=1)]


def _entries(path: Path) -> set[str]:
    try:
        return {str(entry["md5"]) for entry in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError):  # not fetched, or damaged: names nothing that is here
        return set()
