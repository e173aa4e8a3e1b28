"""Sources: every layout that people deliver, and archives that nobody should unpack."""

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from models.common.data.archives import BASE_BUDGET
from models.common.data.sources import Source, labelled_files
from models.common.errors import UserError
from models.common.kind import Example

KINDS = (".jpg",)


def fill(folder: Path, *paths: str) -> Path:
    """Files whose content is their own path."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def zipped(path: Path, *names: str, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in names:
            archive.writestr(name, name.encode())
    return path


def read(path: Path) -> tuple[Source, dict[str, Example]]:
    source = Source(path)
    return source, {example.file_name: example for example in labelled_files(source, KINDS)}


def labels(path: Path) -> dict[str, str | None]:
    return {name: example.label for name, example in read(path)[1].items()}


def test_class_folders_give_labels(tmp_path: Path) -> None:
    assert labels(fill(tmp_path, "cat/1.jpg", "dog/1.JPG")) == {"cat/1.jpg": "cat", "dog/1.JPG": "dog"}


def test_split_folders_give_splits_under_any_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, "set/train/cat/1.jpg", "set/valid/cat/2.jpg", "set/test/dog/3.jpg")
    found = read(tmp_path)[1].values()
    assert [(example.split, example.label) for example in found] == [("test", "dog"), ("train", "cat"), ("val", "cat")]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    found = read(fill(tmp_path, "train/1.jpg", "bus/2.jpg"))[1].values()
    assert {(example.split, example.label) for example in found} == {(None, "train"), (None, "bus")}


def test_one_class_only_is_not_taken_for_a_wrapping_folder(tmp_path: Path) -> None:
    assert set(labels(fill(tmp_path, "photos/cat/1.jpg", "photos/cat/2.jpg")).values()) == {"cat"}


def test_hidden_files_and_what_systems_leave_behind_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "cat/.DS_Store", "__MACOSX/cat/._1.jpg", ".git/x.jpg", "cat/Thumbs.db")
    source, found = read(tmp_path)
    assert (list(found), source.rejected) == (["cat/1.jpg"], [])


def test_files_without_a_class_or_of_another_type_are_told(tmp_path: Path) -> None:
    source, _ = read(fill(tmp_path, "cat/1.jpg", "stray.jpg", "cat/notes.heic", "README.md"))
    reasons = dict(source.rejected)
    assert set(reasons) == {"stray.jpg", "cat/notes.heic"}
    assert "no label" in reasons["stray.jpg"]
    assert ".jpg" in reasons["cat/notes.heic"]


def test_names_are_the_same_text_however_the_system_spelt_them(tmp_path: Path) -> None:
    found = read(fill(tmp_path, "cafe\u0301/1.jpg"))[1]  # as macOS writes é
    assert list(found) == ["caf\u00e9/1.jpg"]
    (tmp_path / os.fsdecode(b"cafe\xcc\x81/\xff.jpg")).write_bytes(b"x")
    assert "caf\u00e9/\ufffd.jpg" in read(tmp_path)[1]  # no text at all: still readable, still a row


def test_an_empty_folder_and_one_without_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        Source(tmp_path)
    with pytest.raises(UserError, match="holds no file of these types"):
        read(fill(tmp_path, "notes.txt"))


def test_what_is_neither_folder_nor_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Source(tmp_path / "nowhere")
    whole = zipped(tmp_path / "a.zip", "cat/1.jpg")
    whole.write_bytes(whole.read_bytes()[:40])
    with pytest.raises(UserError, match="neither a folder nor a complete zip or tar"):
        Source(whole)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_tars_read_like_folders(tmp_path: Path, ending: str) -> None:
    folder = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    path = tmp_path / f"photos.{ending}"
    mode: Any = f"w:{ending.partition('.')[2]}"
    with tarfile.open(path, mode) as archive:
        archive.add(folder, "photos")
    source, found = read(path)
    assert {name: example.payload for name, example in found.items()} == {
        "photos/cat/1.jpg": b"cat/1.jpg",
        "photos/dog/2.jpg": b"dog/2.jpg",
    }
    assert source.slug == "photos"


@pytest.mark.parametrize(
    "name", ["../cat/1.jpg", "cat/../../1.jpg", "/etc/cat/1.jpg", "..\\cat\\1.jpg", "C:\\cat\\1.jpg"]
)
def test_archives_with_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="unsafe path"):
        Source(zipped(tmp_path / "a.zip", "cat/2.jpg", name))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match="unsafe path"):
        Source(tmp_path / "a.tar")


def test_archives_with_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("cat/1.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="symbolic link"):
        Source(tmp_path / "a.zip")
    member = tarfile.TarInfo("cat/1.jpg")
    member.type, member.linkname = tarfile.LNKTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(member)
    with pytest.raises(UserError, match="link"):
        Source(tmp_path / "a.tar")


def test_links_and_pipes_in_a_folder_are_rejected_one_by_one(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg")
    (tmp_path / "cat/2.jpg").symlink_to("/etc/passwd")
    (tmp_path / "dog").symlink_to("/etc")
    os.mkfifo(tmp_path / "cat/3.jpg")
    source, found = read(tmp_path)
    assert list(found) == ["cat/1.jpg"]
    assert {name for name, _ in source.rejected} == {"cat/2.jpg", "cat/3.jpg", "dog"}


def test_a_zip_bomb_is_stopped_by_what_it_unpacks_to(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"cat/{number}.jpg", bytes(BASE_BUDGET // 2))
    source = Source(tmp_path / "bomb.zip")
    with pytest.raises(UserError, match="zip bomb"):
        list(labelled_files(source, KINDS))


def test_a_packed_tar_is_stopped_while_it_is_listed(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cat/1.jpg")
    member.size = BASE_BUDGET + 36 * 2**20
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        archive.addfile(member, io.BytesIO(bytes(member.size)))
        archive.addfile(tarfile.TarInfo("cat/2.jpg"))
    with pytest.raises(UserError, match="zip bomb"):
        Source(tmp_path / "bomb.tar.gz")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "cat/1.jpg", compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        Source(path)


def test_a_member_damaged_in_the_zip_is_rejected_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "cat/1.jpg", "cat/2.jpg", compression=zipfile.ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"cat/2.jpgcat/2.jpg", b"cat/2.jpgcat/X.jpg"))
    source, found = read(path)
    assert list(found) == ["cat/1.jpg"]
    assert "damaged" in dict(source.rejected)["cat/2.jpg"]


def test_of_two_members_with_one_name_the_first_is_taken(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.jpg", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("cat/1.jpg", b"second")
    source, found = read(tmp_path / "a.zip")
    assert found["cat/1.jpg"].payload == b"first"
    assert "second file of this name" in dict(source.rejected)["cat/1.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_metadata_is_read_in_the_encodings_that_people_write(tmp_path: Path, encoding: str) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "metadata.csv").write_bytes("file_name;label\r\n1.jpg;Bär\r\n".encode(encoding))
    source, found = read(tmp_path)
    assert found["1.jpg"].label == "Bär"
    assert bool(source.notes) == (encoding == "cp1252")  # only that one was a guess


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"file_name,label\n1.jpg,ca\0t\n", 2),
        (b"file_name,label\n" + b"1.jpg,cat\n" * 40 + b"2.jpg,ca\0t\n", 42),
        (b"file\0name,label\n1.jpg,cat\n", 1),
        (b"\0\0file_name,label\n1.jpg,cat\n", 1),
        (bytes(300), 1),
        ("file_name,label\n1.jpg,ca\0t\n".encode("utf-16"), 2),
    ],
)
def test_metadata_with_nul_bytes_is_one_clear_line(tmp_path: Path, content: bytes, line: int) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"^metadata.csv line {line} holds a NUL byte, .* write it again as UTF-8$"):
        read(tmp_path)


def test_metadata_columns_become_splits_groups_and_slices(tmp_path: Path) -> None:
    fill(tmp_path, "clips/1.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,label,split,group,camera\nclips/1.jpg,cat,Validation,scene 7,A\n")
    source, found = read(tmp_path)
    assert found["clips/1.jpg"] == Example("clips/1.jpg", b"clips/1.jpg", "cat", "val", "scene 7", {"camera": "A"})
    assert source.columns == ("camera",)


def test_jsonl_metadata_in_split_folders_is_relative_to_itself(tmp_path: Path) -> None:
    fill(tmp_path, "train/1.jpg", "test/1.jpg")
    for split in ("train", "test"):
        (tmp_path / split / "metadata.jsonl").write_text(
            '{"file_name": "1.jpg", "label": 7, "light": null}\nnot json\n'
        )
    source, found = read(tmp_path)
    assert [(example.split, example.label) for example in found.values()] == [("test", "7"), ("train", "7")]
    assert [reason for _, reason in source.rejected] == ["not a JSON object"] * 2


def test_metadata_without_its_columns_is_refused_with_those_it_has(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg")
    (tmp_path / "metadata.csv").write_text("file,class\n1.jpg,cat\n")
    with pytest.raises(UserError, match="no column file_name and no column label; it has: file, class"):
        read(tmp_path)


def test_rows_of_the_metadata_that_fit_no_file_are_rejected(tmp_path: Path) -> None:
    fill(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows = ["1.jpg,cat", "gone.jpg,cat", "../../etc/passwd,cat", "2.jpg,cat", "2.jpg,dog", "1.jpg,cat", "x,y,z", ""]
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "\n".join(rows))
    source, found = read(tmp_path)
    reasons = dict(source.rejected)
    assert list(found) == ["1.jpg"]
    assert "no such file" in reasons["gone.jpg"]
    assert "no such file" in reasons["../../etc/passwd"]
    assert "differently" in reasons["2.jpg"]
    assert "3 values under 2 columns" in reasons["metadata.csv line 8"]
    assert source.notes == ["1 files that no metadata names were left out: 3.jpg, …"]


def test_a_zip_of_recordings_beside_their_metadata_reads_the_same(tmp_path: Path) -> None:
    place = Path(__file__).parents[2] / "shared/data/fsdd/george.zip"
    if not place.exists():
        pytest.skip("../shared/data is not here")
    source = Source(place)
    first = next(iter(labelled_files(source, (".wav",))))
    assert (first.label, first.split, first.extra, source.total) == ("0", "test", {"speaker": "george"}, 500)
