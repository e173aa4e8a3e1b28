"""Folders, zips and tars read one file at a time, none of them trusted: nothing is ever unpacked to disk.

An archive with an absolute path, a `..`, a link, or more bytes than any honest one holds is refused whole.
"""

import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from models.common.errors import UserError

MAX_FILE_BYTES = 256 * 2**20  # bytes of one file; a larger one is not an example
MAX_EXPANSION = 200  # times its own size that an archive may unpack to; deflate's limit is 1032, photos stay under 2
BASE_BUDGET = 64 * 2**20  # bytes that any archive may unpack to, however small it is
SYSTEM_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})  # what operating systems leave in folders

Reject = Callable[[str, str], None]  # (path, reason)


class Archive(Protocol):
    """Where files come from. Paths are relative, with `/`, in Unicode NFC, safe, and without hidden files."""

    def paths(self) -> list[str]:
        """Every file, in the order in which `stream` gives them."""

    def stream(self, selected: Collection[str], reject: Reject) -> Iterator[tuple[str, bytes]]:
        """The selected files, one after another; what cannot be read goes to `reject` with the reason."""


def open_archive(path: Path, reject: Reject) -> Archive:
    """The archive at `path`, listed and checked. UserError where it is none or not a safe one."""
    if path.is_dir():
        return _Folder(path, reject)
    if not path.exists():
        raise UserError(f"{path} does not exist. Give a folder, a zip or a tar of labelled files")
    try:
        if zipfile.is_zipfile(path):
            return _Zip(path, reject)
        if tarfile.is_tarfile(path):
            return _Tar(path, reject)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}. Make or copy the archive again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    raise UserError(f"{path} is neither a folder nor a complete zip or tar (plain, .gz, .bz2, .xz)")


class _Folder:
    def __init__(self, top: Path, reject: Reject) -> None:
        self._files: dict[str, str] = {}
        self._walk(str(top), "", reject)

    def _walk(self, folder: str, prefix: str, reject: Reject) -> None:
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        for entry in children:
            path = prefix + _normalised(entry.name)
            if _is_hidden(entry.name):
                continue
            if entry.is_symlink():
                reject(path, "symbolic link; put the file itself there")
            elif entry.is_dir(follow_symlinks=False):
                self._walk(entry.path, path + "/", reject)
            elif not entry.is_file(follow_symlinks=False):
                reject(path, "not a regular file")
            elif path in self._files:
                reject(path, "another file has the same name but for its encoding")
            else:
                self._files[path] = entry.path

    def paths(self) -> list[str]:
        return list(self._files)

    def stream(self, selected: Collection[str], reject: Reject) -> Iterator[tuple[str, bytes]]:
        for path, file_path in self._files.items():
            if path not in selected:
                continue
            try:
                with open(file_path, "rb", buffering=0) as file:  # noqa: PTH123  # Path costs as much as the read itself
                    payload = file.read(MAX_FILE_BYTES + 1)
            except OSError as error:
                reject(path, f"cannot be read: {error.strerror}")
                continue
            if _fits_limit(path, payload, reject):
                yield path, payload


class _Zip:
    def __init__(self, path: Path, reject: Reject) -> None:
        self._path = path
        self._files: dict[str, zipfile.ZipInfo] = {}
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                self._list(info, reject)

    def _list(self, info: zipfile.ZipInfo, reject: Reject) -> None:
        name = _safe_path(info.filename, self._path)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{self._path} holds a symbolic link ({name}); put the file itself into it")
        if info.is_dir() or any(map(_is_hidden, name.split("/"))):
            return
        if info.flag_bits & 1:
            raise UserError(f"{self._path} is encrypted ({name}); give it without a password")
        if name in self._files:
            reject(name, "a second file of this name in the archive; the first was taken")
        else:
            self._files[name] = info

    def paths(self) -> list[str]:
        return list(self._files)

    def stream(self, selected: Collection[str], reject: Reject) -> Iterator[tuple[str, bytes]]:
        budget = _Budget(self._path)
        with zipfile.ZipFile(self._path) as archive:
            for name, info in self._files.items():
                if name not in selected:
                    continue
                try:
                    with archive.open(info) as file:
                        payload = file.read(MAX_FILE_BYTES + 1)  # the size that the zip states is not believed
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
                    reject(name, f"damaged in the archive: {error}")
                    continue
                budget.spend(len(payload))
                if _fits_limit(name, payload, reject):
                    yield name, payload


class _Tar:
    """A tar is read from its start, twice: to list it, then for its bytes. A name in it may occur more than once."""

    def __init__(self, path: Path, reject: Reject) -> None:
        self._path = path
        self._files: dict[str, int] = {}  # name: which member, counted from 0
        for number, name, _ in self._members():
            if name in self._files:
                reject(name, "a second file of this name in the archive; the first was taken")
            else:
                self._files[name] = number

    def _members(self) -> Iterator[tuple[int, str, IO[bytes]]]:
        with self._path.open("rb") as raw, tarfile.open(fileobj=_decompressed(raw, self._path), mode="r|") as archive:
            for number, member in enumerate(archive):
                name = _safe_path(member.name, self._path)
                if member.issym() or member.islnk():
                    raise UserError(f"{self._path} holds a link ({name}); put the file itself into it")
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None and not any(map(_is_hidden, name.split("/"))):
                    yield number, name, file

    def paths(self) -> list[str]:
        return list(self._files)

    def stream(self, selected: Collection[str], reject: Reject) -> Iterator[tuple[str, bytes]]:
        for number, name, file in self._members():
            if name in selected and self._files[name] == number:
                payload = file.read(MAX_FILE_BYTES + 1)
                if _fits_limit(name, payload, reject):
                    yield name, payload


class _Budget:
    """Counts what an archive has unpacked to, and stops it where only a bomb would go on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._remaining = BASE_BUDGET + MAX_EXPANSION * path.stat().st_size

    def spend(self, size: int) -> None:
        self._remaining -= size
        if self._remaining < 0:
            raise UserError(f"{self._path} unpacks to over {MAX_EXPANSION} times its size: a zip bomb, refused")


class _BudgetedStream:
    """An unpacked stream under a budget: skipping over a member of a packed tar unpacks it, too."""

    def __init__(self, stream: Any, budget: _Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int) -> bytes:
        chunk: bytes = self._stream.read(size)
        self._budget.spend(len(chunk))
        return chunk


def _decompressed(raw: IO[bytes], path: Path) -> Any:
    import bz2
    import gzip
    import lzma

    magic = raw.read(6)
    raw.seek(0)
    for signature, open_stream in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if magic.startswith(signature):
            return _BudgetedStream(open_stream(raw, "rb"), _Budget(path))
    return raw


def _safe_path(name: str, archive: Path) -> str:
    parts = _normalised(name).replace("\\", "/").rstrip("/").split("/")
    absolute = parts[0] == "" or parts[0].endswith(":")
    if absolute or ".." in parts:
        raise UserError(f"{archive} holds the unsafe path {name!r}; a path in it must be relative and without '..'")
    return "/".join(part for part in parts if part != ".")


def _normalised(name: str) -> str:
    """File systems and zips spell é in two ways and hold names that are no text at all; Parquet and git do not."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in SYSTEM_FILES


def _fits_limit(path: str, payload: bytes, reject: Reject) -> bool:
    if len(payload) > MAX_FILE_BYTES:
        reject(path, f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return False
    return True
