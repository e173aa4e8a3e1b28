"""Pictures with sound as data: which files belong together, what is recorded of them, what is checked over all.

metadata.csv  a.png  a.wav  clips/b.wav      image,audio,label[,split][,group][,anything: it becomes a slice]
                                             either of image and audio may be empty; both are relative to the file
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.audio_visual.params import AudioVisualData
from models.audio_visual.preprocessing import naming_part
from models.common.audio import decoding as audio
from models.common.audio.checks import audio_expectations, inspect_sound
from models.common.data.metadata import METADATA_FILES, read_metadata
from models.common.data.packed_files import pack, unpack
from models.common.data.sources import SPLIT_NAMES, STANDARD_COLUMNS, Source
from models.common.errors import BadExampleError, UserError
from models.common.image import decoding as images
from models.common.image.checks import inspect_image, photo_expectations
from models.common.kind import Example, Expectation

if TYPE_CHECKING:
    import pandas as pd

PARTS = {"image": images.EXTENSIONS, "audio": audio.EXTENSIONS}
ROWS_PER_READ = 512  # rows whose files are held until both are there: a tar is read once for each so many rows
USED_COLUMNS = STANDARD_COLUMNS | set(PARTS)


@dataclass(frozen=True)
class _Row:
    """One row of a metadata file: part -> path in the source, and what stands beside them."""

    location: str
    files: dict[str, str]
    fields: dict[str, str]
    split: str | None


def examples(source: Source, data: AudioVisualData) -> Iterator[Example]:
    """Every row of the metadata whose files are there; the others go to `source.reject`. UserError without metadata."""
    metadata = [path for path in source.paths if path.rpartition("/")[2] in METADATA_FILES]
    if not metadata:
        raise UserError(
            f"{source.path} has no {' or '.join(METADATA_FILES)}; it says which picture and which sound belong"
            " together: image,audio,label[,split][,group]"
        )
    rows = list(_rows(source, metadata, data))
    source.total = len(rows)
    _note_unnamed_files(source, rows)
    for start in range(0, len(rows), ROWS_PER_READ):
        yield from _read(source, rows[start : start + ROWS_PER_READ])


def _rows(source: Source, metadata: list[str], data: AudioVisualData) -> Iterator[_Row]:
    column_names = {**data.columns, **{part: data.columns.get(part, part) for part in PARTS}}
    paths, known_rows = set(source.paths), set[str]()
    for path, payload in source.stream(set(metadata)):
        content = read_metadata(path, payload, column_names | {"file_name": column_names["image"]})
        source.rejected += content.invalid_lines
        source.columns = tuple(
            dict.fromkeys([*source.columns, *(name for name in content.columns if name not in USED_COLUMNS)])
        )
        for number, fields in enumerate(content.rows, 1):
            row = _row(path, number, fields)
            key = repr((row.files, row.fields))
            if key not in known_rows and _is_complete(source, row, paths):
                known_rows.add(key)
                yield row


def _row(metadata: str, number: int, fields: dict[str, str]) -> _Row:
    folder = metadata.rpartition("/")[0]
    files = {
        part: f"{folder}/{name}" if folder else name
        for part in PARTS
        if (name := fields[part].replace("\\", "/").removeprefix("./"))
    }
    split = fields.get("split") or SPLIT_NAMES.get(folder.rpartition("/")[2].lower(), "")
    return _Row(f"{metadata} row {number}", files, fields, SPLIT_NAMES.get(split.lower(), split) or None)


def _is_complete(source: Source, row: _Row, paths: set[str]) -> bool:
    """Whether every file that the row names can be one; else it is rejected with the reason."""
    if not row.files:
        source.reject(row.location, "neither a picture nor a sound: image and audio are both empty")
        return False
    for part, path in row.files.items():
        if path not in paths:
            source.reject(row.location, f"its {part} {path} is not there")
            return False
        if not path.lower().endswith(tuple(PARTS[part])):
            source.reject(row.location, f"its {part} {path} is not of a type that is read ({_join(PARTS[part])})")
            return False
    return True


def _read(source: Source, rows: list[_Row]) -> Iterator[Example]:
    """A row whose file could not be read has been rejected by name already."""
    paths = {path for row in rows for path in row.files.values()}
    files = dict(source.stream(paths))
    for row in rows:
        if all(path in files for path in row.files.values()):
            payload = pack({part: files[path] for part, path in row.files.items()})
            fields = row.fields
            extra = {name: value for name, value in fields.items() if name not in USED_COLUMNS}
            name = " + ".join(row.files.values())
            yield Example(name, payload, fields["label"], row.split, fields.get("group") or None, extra)


def _note_unnamed_files(source: Source, rows: list[_Row]) -> None:
    named = {path for row in rows for path in row.files.values()}
    usable = tuple(ending for endings in PARTS.values() for ending in endings)
    unnamed = [path for path in source.paths if path not in named and path.lower().endswith(usable)]
    if unnamed:
        source.notes.append(f"{len(unnamed)} files that no metadata names were left out: {unnamed[0]}, …")


def inspect(example: Example, data: AudioVisualData) -> dict[str, Any]:
    """What is recorded of photos and of sounds, None for the half that is missing; parts: "image+audio", "image", …

    Raises BadExampleError with the reason, and which half it is about. `phash` of an example without picture is a hash
    of its bytes, so that it looks like no other.
    """
    parts = unpack(example.payload)
    if not parts.keys() & PARTS.keys():
        raise BadExampleError("neither a picture nor a sound")
    columns: dict[str, Any] = {"phash": int.from_bytes(hashlib.sha256(example.payload).digest()[:8], "big")}
    if "image" in parts:
        with naming_part("image"):
            columns |= inspect_image(parts["image"], data)
    if "audio" in parts:
        with naming_part("audio"):
            columns |= inspect_sound(parts["audio"], data)
    return columns | {"parts": "+".join(part for part in PARTS if part in parts)}


def expectations(data: AudioVisualData, manifest: "pd.DataFrame") -> list[Expectation]:
    """How often a half is missing, and all checks of photos and of recordings on those that have one."""
    checks = [_completeness(part, word, data) for part, word in (("image", "picture"), ("audio", "sound"))]
    for part, make in (("image", photo_expectations), ("audio", audio_expectations)):
        rows = manifest[manifest["parts"].str.contains(part)].copy()
        if len(rows):
            checks += make(data, rows)
            for column in rows.columns.difference(manifest.columns):
                manifest[column] = rows[column]  # empty where the half is missing, which the checks pass over
    return checks


def _completeness(part: str, word: str, data: AudioVisualData) -> Expectation:
    return Expectation(
        name=f"few examples lack their {word}",
        expectation="ExpectColumnValuesToMatchRegex",
        kwargs={"column": "parts", "regex": part, "mostly": 1 - data.max_missing},
        severity="warn",
        remedy=f"over max_missing ({data.max_missing:.0%}) of the examples have no {word}, so little is learnt of it;"
        " see whether files were lost, or raise max_missing",
    )


def _join(endings: frozenset[str]) -> str:
    return ", ".join(sorted(endings))
