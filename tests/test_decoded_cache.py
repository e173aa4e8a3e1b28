"""Decoded examples are kept, and converted anew as soon as the converter is another one."""

import functools
import hashlib
import importlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import models
from models.common.data.batches import read_manifest
from models.common.data.conversion_digest import conversion_digest
from models.common.data.decoded_cache import decoded, ragged
from models.common.image.letterbox import Canvas

CONVERTER = """
import numpy as np
CALLS = []
def brightened(payload):
    CALLS.append(payload)
    return np.frombuffer(payload, np.uint8) + {more}
"""

WriteModule = Callable[[str, str], ModuleType]


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "numbers"
    folder.mkdir(parents=True)
    packed = [struct.pack("2B", *row) for row in ([1, 2], [3, 4])]
    ids = [hashlib.sha256(payload).hexdigest() for payload in packed]
    table = pa.table({"id": ids, "group": pa.nulls(len(ids), pa.string()), "bytes": packed, "target": packed})
    pq.write_table(table, folder / "a.parquet")
    pq.write_table(table.drop_columns(["bytes", "target"]), folder / "a.index")
    (folder / "a.parquet.dvc").write_text(f"outs:\n- md5: {hashlib.md5(b'a').hexdigest()}\n")
    return folder


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Writes a module, here or among `models`, and imports it as a new process would."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "code/models")])
    (tmp_path / "code/models").mkdir(parents=True)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or a module of the same second and size would be kept
    before = set(sys.modules)

    def write(name: str, source: str) -> ModuleType:
        (tmp_path / "code" / Path(*name.split("."))).with_suffix(".py").write_text(source)
        for written in set(sys.modules) - before:
            del sys.modules[written]
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    for written in set(sys.modules) - before:
        del sys.modules[written]


def take(batches: Path, home: Path, convert: Callable[[bytes], NDArray[Any]]) -> list[list[int]]:
    found = decoded(batches, read_manifest(batches), home, "numbers", (2,), convert)
    numbers: list[list[int]] = found.take(np.array([0, 1])).tolist()
    return numbers


def test_a_changed_converter_gives_new_numbers_and_the_old_one_is_not_run_again(
    batches: Path, tmp_path: Path, write_module: WriteModule
) -> None:
    assert take(batches, tmp_path, write_module("toy", CONVERTER.format(more=0)).brightened) == [[1, 2], [3, 4]]
    assert take(batches, tmp_path, write_module("toy", CONVERTER.format(more=10)).brightened) == [[11, 12], [13, 14]]
    again = write_module("toy", CONVERTER.format(more=0))
    assert take(batches, tmp_path, again.brightened) == [[1, 2], [3, 4]]
    assert again.CALLS == []


def test_sounds_of_a_changed_converter_are_converted_anew(
    batches: Path, tmp_path: Path, write_module: WriteModule
) -> None:
    for more in (0, 10):
        convert = write_module("toy", CONVERTER.format(more=more)).brightened
        assert list(ragged(batches, read_manifest(batches), tmp_path, "numbers", convert)[0]) == [1 + more, 2 + more]


def test_what_a_converter_imports_of_ours_counts_also_through_others(write_module: WriteModule) -> None:
    write_module("models.inner", "NUMBER = 1\n")
    write_module("models.outer", "from models import inner\n")
    toy = "def convert(payload):\n    import models.outer\n"
    first = conversion_digest(write_module("toy", toy).convert)
    write_module("models.inner", "NUMBER = 2\n")
    assert conversion_digest(write_module("toy", toy).convert) != first
    write_module("models.inner", "NUMBER = 1\n")
    write_module("models.another", "NUMBER = 3\n")
    assert conversion_digest(write_module("toy", toy).convert) == first


@dataclass(frozen=True)
class Scale:
    """A converter's settings."""

    factor: float
    table: NDArray[np.uint8]

    def apply(self, payload: bytes, offset: int = 0) -> NDArray[np.uint8]:
        return self.table[np.frombuffer(payload, np.uint8)] + offset


def scaled(factor: float) -> Callable[[bytes], NDArray[Any]]:
    return lambda payload: np.frombuffer(payload, np.uint8) * factor


def test_what_a_converter_is_bound_to_counts() -> None:
    table = np.arange(5000, dtype=np.uint8)  # longer than its repr
    other = np.where(np.arange(5000) == 2500, 7, table).astype(np.uint8)
    makers: list[Callable[[], Callable[..., Any]]] = [
        lambda: Scale(1, table).apply,
        lambda: Scale(2, table).apply,
        lambda: Scale(1, other).apply,
        lambda: functools.partial(Scale(1, table).apply, offset=1),
        lambda: functools.partial(Scale(1, table).apply, offset=2),
        lambda: scaled(2),
        lambda: scaled(3),
        lambda: Canvas(8, 8, True, 100).pixels,
        lambda: Canvas(8, 8, False, 100).pixels,
        lambda: functools.partial(np.frombuffer, dtype="u1"),
        lambda: functools.partial(scaled, frozenset({"a", "b"})),  # type: ignore[arg-type]  # never called
    ]
    digests = [conversion_digest(make()) for make in makers]
    assert len(set(digests)) == len(makers)
    assert [conversion_digest(make()) for make in makers] == digests


def test_another_process_finds_what_was_converted() -> None:
    code = (
        "import functools; from models.common.data.conversion_digest import conversion_digest as digest\n"
        "from models.common.image.letterbox import Canvas\n"
        "print(digest(functools.partial(Canvas(8, 8, True, 100).pixels, frozenset('abcdef'))))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_a_converter_bound_to_something_that_says_nothing_of_itself_is_refused() -> None:
    with pytest.raises(TypeError, match=r"A converter is bound to a object, .* Bind plain values"):
        conversion_digest(functools.partial(Scale.apply, object()))  # type: ignore[arg-type]
