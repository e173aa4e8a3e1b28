"""`metadata.csv` and `metadata.jsonl`: what people write beside their files, in whatever encoding they wrote it."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.common.errors import UserError

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
REQUIRED_COLUMNS = ("file_name", "label")
csv.field_size_limit(2**20)  # a transcript may be longer than Python's 128 KiB


@dataclass(frozen=True)
class Metadata:
    """Rows of one metadata file, in its order: column -> text, "" where nothing is given."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    invalid_lines: list[tuple[str, str]]  # (which line, reason)
    encoding: str


def read_metadata(path: str, payload: bytes, column_names: Mapping[str, str] | None = None) -> Metadata:
    """Reads one metadata file; `column_names`: our name of a column -> the file's. UserError where it is none.

    A column whose name another one takes (`label`, where `speaker` is read as it) keeps its values as `given_label`.
    """
    text, encoding = _decode(payload)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path} line {line} holds a NUL byte, so it is damaged or no text; write it again as UTF-8")
    parse = _read_jsonl if path.endswith(".jsonl") else _read_csv
    columns, rows, invalid_lines = parse(path, text)
    column_names = dict(column_names or {})
    missing = [
        column_names.get(name, name)
        for name in {**dict.fromkeys(REQUIRED_COLUMNS), **column_names}
        if column_names.get(name, name) not in columns
    ]
    if missing:
        raise UserError(
            f"{path} has no column {' and no column '.join(missing)}; it has: {', '.join(columns) or 'nothing'}."
            f" Needed: {', '.join(column_names.get(name, name) for name in REQUIRED_COLUMNS)}; optional: split, group;"
            " any further column becomes a slice. Columns of other names: data.columns in params.yaml"
        )
    return _renamed(Metadata(columns, rows, invalid_lines, encoding), column_names)


def _renamed(content: Metadata, column_names: Mapping[str, str]) -> Metadata:
    """The same with our names. A column read as another one keeps its own name too, so that it can be a slice."""
    if not column_names:
        return content
    kept_as = {
        target: f"given_{target}"
        for target, column in column_names.items()
        if target in content.columns and target != column
    }
    rows = [
        {kept_as.get(name, name): value for name, value in row.items()}
        | {target: row[column] for target, column in column_names.items()}
        for row in content.rows
    ]
    columns = [kept_as.get(name, name) for name in content.columns]
    return Metadata(tuple(dict.fromkeys([*columns, *column_names])), rows, content.invalid_lines, content.encoding)


def _decode(payload: bytes) -> tuple[str, str]:
    """Text and the encoding that was used: by its mark, else UTF-8, else what Windows writes in the West."""
    if payload.startswith((b"\xff\xfe", b"\xfe\xff")):
        return payload.decode("utf-16", "replace"), "UTF-16"
    if b"\0" in payload[:200]:  # UTF-16 without its mark: every other byte of a Latin header is zero
        text = payload.decode("utf-16-be" if payload[:1] == b"\0" else "utf-16-le", "replace")
        if (
            sum(letter.isascii() for letter in text[:100]) > len(text[:100]) / 4
        ):  # else it is something with a NUL in it
            return text, "UTF-16"
    try:
        return payload.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return payload.decode("cp1252", "replace"), "Windows-1252"


def _read_csv(path: str, text: str) -> tuple[tuple[str, ...], list[dict[str, str]], list[tuple[str, str]]]:
    header = text.lstrip("\r\n").split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    rows, invalid_lines = [], []
    columns: tuple[str, ...] = ()
    for line in _csv_lines(path, reader):
        if not any(value.strip() for value in line):
            continue
        if not columns:
            columns = tuple(name.strip() for name in line)
            _refuse_duplicates(path, columns)
        elif len(line) > len(columns):
            invalid_lines.append((f"{path} line {reader.line_num}", f"{len(line)} values under {len(columns)} columns"))
        else:
            values = [value.strip() for value in line] + [""] * (len(columns) - len(line))
            rows.append(dict(zip(columns, values, strict=True)))
    return columns, rows, invalid_lines


def _csv_lines(path: str, reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV: {error}") from None


def _refuse_duplicates(path: str, columns: tuple[str, ...]) -> None:
    duplicates = sorted({name for name in columns if columns.count(name) > 1})
    if duplicates:
        raise UserError(f"{path} has the column {duplicates[0]!r} twice; give every column a name of its own")


def _read_jsonl(path: str, text: str) -> tuple[tuple[str, ...], list[dict[str, str]], list[tuple[str, str]]]:
    rows, invalid_lines = [], []
    columns: dict[str, None] = {}  # in order of appearance
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            invalid_lines.append((f"{path} line {number}", "not a JSON object"))
            continue
        columns |= dict.fromkeys(row)
        rows.append({name: _to_text(value) for name, value in row.items()})
    return tuple(columns), [dict.fromkeys(columns, "") | row for row in rows], invalid_lines


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
