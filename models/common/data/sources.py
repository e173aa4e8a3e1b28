"""A source of labelled files as people deliver them: class folders, or files beside metadata.csv or metadata.jsonl.

    cat/1.jpg  dog/2.jpg                      the folder is the label
    train/cat/1.jpg  val/…  test/…            the upper folder is the split
    metadata.csv  1.wav  clips/2.wav          file_name,label[,split][,group][,anything: it becomes a slice]
    train/metadata.csv  train/1.wav  …        file_name is relative to its metadata file

All of it may lie in one more folder, in a zip or in a tar. Shared by every kind that learns one label per file.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.common.data.archives import open_archive
from models.common.data.metadata import METADATA_FILES, Metadata, read_metadata
from models.common.errors import UserError
from models.common.kind import Example

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
STANDARD_COLUMNS = frozenset({"file_name", "label", "split", "group"})


@dataclass(frozen=True)
class _Row:
    label: str
    split: str | None = None
    group: str | None = None
    extra: tuple[tuple[str, str], ...] = ()  # further columns; hashable, so that rows can be compared


class Source:
    """A folder, zip or tar. What a layout finds wrong or worth reporting is collected here while it is read.

    rejected: (file, reason) of every file that is no example; notes: lines for the person who adds the source;
    columns: further columns of the metadata; total: how many examples will be read, once that is known.
    """

    def __init__(self, path: Path) -> None:
        """Lists the source without reading its files. UserError where it is not readable or not safe."""
        self.path = path.resolve()
        self.name = path.resolve().name
        self.rejected: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.columns: tuple[str, ...] = ()
        self.total = 0
        self._archive = open_archive(path, self.reject)
        self.paths = self._archive.paths()
        if not self.paths and not self.rejected:
            raise UserError(f"{path} is empty: there is no file in it")

    def reject(self, path: str, reason: str) -> None:
        self.rejected.append((path, reason))

    def stream(self, selected: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of the selected files in the source's own order, one at a time."""
        return self._archive.stream(selected, self.reject)

    @property
    def slug(self) -> str:
        """The name without its ending, as part of a file name."""
        stem = self.name if self.path.is_dir() else re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", self.name)
        return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-") or "batch"


def labelled_files(
    source: Source, extensions: Collection[str], columns: Mapping[str, str] | None = None
) -> Iterator[Example]:
    """Every labelled file with one of these extensions (".wav"), in the source's order.

    `columns`: what the metadata calls ours, as in {"label": "transcript"}.

    UserError where the source has no usable layout; single files that cannot be used go to `source.reject`.
    """
    metadata = [path for path in source.paths if path.rsplit("/", 1)[-1] in METADATA_FILES]
    column_names = dict(columns or {})
    plan = _metadata_rows(source, metadata, extensions, column_names) if metadata else _folder_rows(source, extensions)
    source.total = len(plan)
    for path, payload in source.stream(plan):
        row = plan[path]
        extra = {key: value for key, value in row.extra if key not in STANDARD_COLUMNS}
        yield Example(path, payload, row.label, row.split, row.group, extra)


def _folder_rows(source: Source, extensions: Collection[str]) -> dict[str, _Row]:
    """Class folders, under split folders or not."""
    parts = {path: path.split("/") for path in source.paths}
    usable = [path for path in parts if _extension(path) in extensions]
    if not usable:
        raise UserError(f"{source.path} holds no file of these types: {', '.join(sorted(extensions))}")
    inside = [parts[path] for path in usable if len(parts[path]) > 1]
    depth = _wrapping_depth(inside)
    splits = all(_split_of(steps[depth]) for steps in inside) and any(len(steps) > depth + 2 for steps in inside)
    plan = {}
    for path, steps in parts.items():
        inner = steps[depth + splits :]
        if len(inner) < 2:
            if _extension(path) in extensions:
                source.reject(path, "no label: it lies in no class folder, and there is no metadata.csv")
        elif _extension(path) not in extensions:
            source.reject(path, f"not of a type that is read ({', '.join(sorted(extensions))})")
        else:
            plan[path] = _Row(inner[0].strip(), _split_of(steps[depth]) if splits else None)
    return plan


def _wrapping_depth(paths: list[list[str]]) -> int:
    """How many upper folders hold everything and so say nothing: a class or a split folder is never one of them."""
    depth = 0
    while paths and all(len(steps) > depth + 2 for steps in paths):
        first = paths[0][depth]
        if _split_of(first) or any(steps[depth] != first for steps in paths):
            break
        depth += 1
    return depth


def _metadata_rows(
    source: Source, metadata: list[str], extensions: Collection[str], columns: dict[str, str]
) -> dict[str, _Row]:
    """Files named by metadata files, each relative to its own."""
    folders = [path.rpartition("/")[0] for path in metadata]
    if len(set(folders)) < len(folders):
        raise UserError(f"{source.path} has metadata.csv and metadata.jsonl side by side; keep one of them")
    rows_by_file: dict[str, set[_Row]] = {}
    for path, payload in source.stream(set(metadata)):
        content = read_metadata(path, payload, columns)
        _add_notes(source, path, content)
        for row in content.rows:
            name, parsed = _row(path, row)
            rows_by_file.setdefault(name, set()).add(parsed)
    existing = set(source.paths)
    for name, rows in rows_by_file.items():
        if name not in existing:
            source.reject(name, "named in the metadata, but there is no such file")
        elif len(rows) > 1:
            source.reject(name, "named more than once in the metadata, differently")
    unlisted = [path for path in source.paths if path not in rows_by_file and _extension(path) in extensions]
    if unlisted:
        source.notes.append(f"{len(unlisted)} files that no metadata names were left out: {unlisted[0]}, …")
    return {name: rows.pop() for name, rows in rows_by_file.items() if name in existing and len(rows) == 1}


def _add_notes(source: Source, path: str, content: Metadata) -> None:
    source.rejected += content.invalid_lines
    if content.encoding == "Windows-1252":
        source.notes.append(f"{path} is not UTF-8; it was read as Windows-1252. See that its labels look right")
    source.columns = tuple(
        dict.fromkeys([*source.columns, *(name for name in content.columns if name not in STANDARD_COLUMNS)])
    )


def _row(metadata: str, row: dict[str, str]) -> tuple[str, _Row]:
    folder = metadata.rpartition("/")[0]
    name = unicodedata.normalize("NFC", row["file_name"]).replace("\\", "/").removeprefix("./")
    split = row.get("split") or _split_of(folder.rpartition("/")[2]) or ""
    return f"{folder}/{name}" if folder else name, _Row(
        label=row["label"],
        split=SPLIT_NAMES.get(split.lower(), split) or None,
        group=row.get("group") or None,
        extra=tuple(row.items()),
    )


def _split_of(folder: str) -> str | None:
    return SPLIT_NAMES.get(folder.lower())


def _extension(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""
