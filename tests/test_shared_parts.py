"""What kinds beyond images of one label share: packed parts, truths that are no label, examples of any length."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from models.common.data.arrow_columns import empty
from models.common.data.batches import iter_payloads, read_manifest, read_payloads
from models.common.data.class_counts import read_counts, write_counts
from models.common.data.decoded_cache import decoded, ragged
from models.common.data.hashing import unit_interval
from models.common.data.held_out import with_validation
from models.common.data.metadata import read_metadata
from models.common.data.packed_files import pack, unpack
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example
from models.common.params import DataParams, Splits
from models.common.program.answers import differs
from tasks.adding.intake import Intake, KnownExamples, split_of
from tasks.project.finite_json import finite_json


@pytest.mark.parametrize(
    ("expected", "answer", "said"),
    [
        ({"a": 0.5}, {"a": 0.50005, "more": 1}, ""),
        ({"a": 0.5}, {"a": 0.6}, "a: 0.6 instead of 0.5"),
        ({"a": 0.5}, {}, "a: None instead of 0.5"),
        ({"a": 0.5}, "text", "text instead of {'a': 0.5}"),
        ({"box": [1.0, 200.0]}, {"box": [1.0, 200.01]}, ""),  # of 200 a share, not an absolute number
        ({"box": [1.0, 200.0]}, {"box": [1.0, 200.1]}, "box: 1: 200.1 instead of 200.0"),
        ([1, 2], [1], "[1] instead of [1, 2]"),
        ("yes", "yes", ""),
        ("yes", "no", "no instead of yes"),
        (True, 1.00001, "1.00001 instead of True"),
        (0.5, float("nan"), "nan instead of 0.5"),
    ],
)
def test_answers_differ_by_more_than_the_tolerance_or_in_kind(expected: object, answer: object, said: str) -> None:
    assert differs(expected, answer, 1e-4) == said


@pytest.mark.parametrize(
    ("group", "point", "split"),
    [
        ("a", 0.7913742705223816, "train"),
        ("speaker 1", 0.22403802568933043, "test"),
        ("größe", 0.8254949094511221, "train"),
        ("0" * 64, 0.37842344159579144, "val"),
    ],
)
def test_the_split_of_a_group_is_what_it_always_was(group: str, point: float, split: str) -> None:
    assert unit_interval(group) == point
    assert split_of(group, Splits(val=0.3, test=0.3)) == split


def test_the_validation_groups_of_a_delivery_without_any_are_what_they_always_were() -> None:
    groups = [f"scene{number}" for number in range(40)]
    found = with_validation(pd.DataFrame({"split": "train", "group": groups}), 0.1)
    assert list(found.loc[found["split"] == "val", "group"]) == ["scene6", "scene10", "scene16", "scene32", "scene35"]


def test_json_gets_null_for_what_is_no_number_at_any_depth() -> None:
    plain = finite_json({"a": float("nan"), "b": [1.5, -np.inf, {"c": np.float64("nan")}], "d": (0.0, "nan")})
    assert plain == {"a": None, "b": [1.5, None, {"c": None}], "d": [0.0, "nan"]}


def test_parts_come_back_and_the_same_parts_are_the_same_bytes() -> None:
    parts = {"image": b"\x89PNG", "audio": bytes(range(256))}
    assert unpack(pack(parts)) == parts
    assert pack(parts) == pack(dict(reversed(parts.items())))
    assert pack(parts) != pack({"image": parts["image"]})


@pytest.mark.parametrize("payload", [b"", b"PK", pack({"a": b"1" * 100})[:90]])
def test_what_is_no_packed_example_is_refused(payload: bytes) -> None:
    with pytest.raises(BadExampleError, match="not a packed example"):
        unpack(payload)


def test_counts_of_classes_survive_any_name() -> None:
    counts = {"traffic light": 2, 'a "b"': 1, "größe": 3}
    assert read_counts(write_counts(counts)) == counts
    assert read_counts(None) == {}


def test_a_metadata_column_may_have_another_name() -> None:
    text = b"file_name,label,speaker,split\n1.wav,seven,theo,test\n"
    row = read_metadata("metadata.csv", text, {"label": "speaker"})
    assert row.rows == [
        {"file_name": "1.wav", "label": "theo", "given_label": "seven", "speaker": "theo", "split": "test"}
    ]
    assert set(row.columns) == set(row.rows[0])
    with pytest.raises(UserError, match=r"metadata.csv has no column person; it has: file_name, label, speaker, split"):
        read_metadata("metadata.csv", text, {"label": "person"})


def write(folder: Path, name: str, rows: list[list[int]]) -> None:
    """A batch whose examples are whole numbers, and whose targets are their negatives."""
    packed = [struct.pack(f"{len(row)}h", *row) for row in rows]
    ids = [hashlib.sha256(payload).hexdigest() for payload in packed]
    negated = [struct.pack(f"{len(row)}h", *(-value for value in row)) for row in rows]
    table = pa.table({"id": ids, "group": pa.nulls(len(ids), pa.string()), "bytes": packed, "target": negated})
    pq.write_table(table, folder / f"{name}.parquet")
    pq.write_table(table.drop_columns(["bytes", "target"]), folder / f"{name}.index")
    (folder / f"{name}.parquet.dvc").write_text(f"outs:\n- md5: {hashlib.md5(name.encode()).hexdigest()}\n")


def numbers(payload: bytes) -> NDArray[np.int16]:
    if not payload:
        raise BadExampleError("empty file (0 bytes)")
    return np.frombuffer(payload, "<i2")


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "numbers"
    folder.mkdir(parents=True)
    write(folder, "a", [[1, 2, 3], [4], [5, 6]])
    write(folder, "b", [[7], [-8, 9, 10, 11]])
    return folder


def test_examples_of_any_length_come_back_whole_in_any_order(batches: Path, tmp_path: Path) -> None:
    manifest = read_manifest(batches).iloc[[4, 0, 3, 2]].reset_index(drop=True)
    for _ in range(2):  # converted, then from the cache
        found = ragged(batches, manifest, tmp_path, "numbers", numbers)
        assert list(found.lengths) == [4, 3, 1, 2]
        assert [list(values) for values in found.take(np.array([0, 1, 2, 3, 0]))] == [
            [-8, 9, 10, 11], [1, 2, 3], [7], [5, 6], [-8, 9, 10, 11]
        ]  # fmt: skip
    targets = ragged(batches, manifest, tmp_path, "targets", numbers, "target")
    assert list(targets[0]) == [8, -9, -10, -11]


def test_what_cannot_be_converted_names_its_batch_and_leaves_nothing_half_made(batches: Path, tmp_path: Path) -> None:
    write(batches, "c", [[1], []])
    with pytest.raises(UserError, match=r"c, row 1: empty file .* ratchet remove numbers c"):
        ragged(batches, read_manifest(batches), tmp_path, "numbers", numbers)
    assert sorted(path.name[0] for path in (tmp_path / "decoded").rglob("?-*.*")) == ["a", "a", "b", "b"]


def test_targets_are_read_like_bytes(batches: Path, tmp_path: Path) -> None:
    assert [list(numbers(target)) for target in iter_payloads(batches, "a", "target")] == [[-1, -2, -3], [-4], [-5, -6]]
    rows = read_manifest(batches).iloc[[3, 1]]
    assert [list(numbers(target)) for target in read_payloads(batches, rows, "target")] == [[-7], [-4]]
    one = read_manifest(batches).iloc[[1]]
    grey = decoded(batches, one, tmp_path, "grey", (1,), lambda target: np.full(1, len(target), np.uint8), "target")
    assert grey.take(np.array([0])).tolist() == [[2]]


def test_the_same_bytes_with_another_target_are_quarantined_both() -> None:
    nothing = empty(pa.schema([(name, pa.string()) for name in ("id", "truth", "split", "batch")]))
    intake = Intake(DataParams(), "target", None, KnownExamples(nothing), {})
    columns = {"classes": write_counts({"car": 2})}
    one = Example("1.png", b"picture", target=b"mask")
    assert intake.accept(one, "1", columns) is not None
    assert intake.accept(one, "1", columns) is None
    assert (intake.duplicates, dict(intake.classes)) == (1, {"car": 2})
    assert intake.accept(Example("2.png", b"picture", target=b"another mask"), "1", columns) is None
    assert [reason for _, reason in intake.quarantined] == [
        "the same bytes have another target later in this source",
        "the same bytes have another target in file 1.png",
    ]
    assert +intake.classes == {}
    assert intake.accept(Example("3.png", b"other"), "3", columns) is None
    assert intake.quarantined[-1] == ("3.png", "no target")


def test_a_manifest_of_targets_has_a_digest_and_no_bytes(batches: Path) -> None:
    manifest: pd.DataFrame = read_manifest(batches)
    assert not {"bytes", "target"} & set(manifest)
