"""Annotations: Pascal VOC and COCO in every layout that people deliver, and what is wrong with them in one line."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.image.decoding import EXTENSIONS
from models.common.kind import Example
from models.common.objects.annotations import Annotation, check_objects, parse_target
from models.common.objects.reading import annotated_pictures
from tests.conftest import CODE

BCCD = CODE.parent / "shared/data/bccd"


def picture(width: int = 40, height: int = 30, rotated: bool = False) -> bytes:
    image, out = Image.new("RGB", (width, height), "red"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6 if rotated else 1
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


def write(folder: Path, **files: Any) -> Path:
    """Files by path, `__` for a slash; what is neither bytes nor text becomes JSON."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_JPG", ".jpg").replace("_XML", ".xml").replace(
            "_JSON", ".json"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def xml(*objects: str, name: str = "1.jpg", size: str = "<width>40</width><height>30</height>") -> str:
    return f"<annotation><filename>{name}</filename><size>{size}</size>{''.join(objects)}</annotation>"


def thing(label: str = "cat", box: tuple[object, ...] = (1, 1, 40, 30), more: str = "") -> str:
    edges = "".join(
        f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{label}</name>{more}<bndbox>{edges}</bndbox></object>"


def read(path: Path, masks: bool = False) -> tuple[Source, dict[str, Example]]:
    source = Source(path)
    return source, {one.file_name: one for one in annotated_pictures(source, EXTENSIONS, masks)}


def only(path: Path, masks: bool = False) -> Annotation:
    source, found = read(path, masks)
    assert source.rejected == []
    (example,) = found.values()
    assert example.target is not None
    return parse_target(example.target)


def reasons(path: Path, masks: bool = False) -> dict[str, str]:
    source, found = read(path, masks)
    assert found == {}
    return dict(source.rejected)


# --- Pascal VOC


def test_voc_pixels_become_edges(tmp_path: Path) -> None:
    write(tmp_path, JPEGImages__1_JPG=picture(), Annotations__1_XML=xml(thing(), thing("dog", (5, 6, 10, 20))))
    found = only(tmp_path)
    assert (found.width, found.height, found.labels) == (40, 30, ("cat", "dog"))
    assert found.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 10, 20]]


def test_voc_says_which_objects_are_difficult(tmp_path: Path) -> None:
    objects = thing(more="<difficult>1</difficult>"), thing(more="<difficult>0</difficult>"), thing()
    found = only(write(tmp_path, a_JPG=picture(), a_XML=xml(*objects)))
    assert found.ignored.tolist() == found.difficult.tolist() == [True, False, False]
    assert found.counts == {"cat": 2}


def test_the_target_is_the_same_bytes_for_the_same_objects(tmp_path: Path) -> None:
    write(tmp_path, a_JPG=picture(), a_XML=xml(thing(box=(2, "3.00", 10.5, 1e1))))
    (example,) = read(tmp_path)[1].values()
    assert example.target == (
        b'{"width":40,"height":30,"objects":[{"label":"cat","box":[1,2,10.5,10],"crowd":false,"difficult":false}]}'
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_voc_splits_come_from_folders_or_from_lists(tmp_path: Path, zipped: bool) -> None:
    files: dict[str, bytes | str] = {
        f"set__{folder}__{name}_JPG": picture(40 + len(name)) for folder, name in (("train", "a"), ("valid", "bb"))
    }
    files |= {name.replace("JPG", "XML"): xml(thing()) for name in files}
    folder = write(tmp_path / "made", **files)
    if zipped:
        with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
            for path in sorted(folder.rglob("*.*")):
                archive.write(path, path.relative_to(folder))
        folder = tmp_path / "made.zip"
    found = read(folder)[1]
    assert {name: one.split for name, one in found.items()} == {"set/train/a.jpg": "train", "set/valid/bb.jpg": "val"}


def test_voc_lists_of_splits_are_read(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"VOC__JPEGImages__{name}_JPG": picture() for name in "abc"}
    files |= {f"VOC__Annotations__{name}_XML": xml(thing(), name=f"{name}.jpg") for name in "abc"}
    write(tmp_path, **files)
    lists = tmp_path / "VOC/ImageSets/Main"
    lists.mkdir(parents=True)
    for name, text in {"train": "a\n", "test": "b\n\n", "cat_train": "c 1\n"}.items():
        (lists / f"{name}.txt").write_text(text)
    assert [one.split for one in read(tmp_path)[1].values()] == ["train", "test", None]
    (lists / "val.txt").write_text("a\n")
    with pytest.raises(UserError, match="'a' is in two of the lists"):
        read(tmp_path)


def test_pictures_of_one_name_go_with_the_annotation_nearest_to_them(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        f"{split}__images__1_JPG": picture(40, height) for split, height in (("train", 30), ("val", 31))
    }
    size = "<width>40</width><height>{}</height>"
    files |= {
        f"{split}__labels__1_XML": xml(size=size.format(height)) for split, height in (("train", 30), ("val", 31))
    }
    found = read(write(tmp_path, **files))[1]
    heights = {name: parse_target(one.target or b"").height for name, one in found.items()}
    assert heights == {"train/images/1.jpg": 30, "val/images/1.jpg": 31}


def test_a_picture_without_an_annotation_is_told_and_left_out(tmp_path: Path) -> None:
    source, found = read(write(tmp_path, a_JPG=picture(), b_JPG=picture(41), a_XML=xml(thing())))
    assert list(found) == ["a.jpg"]
    assert source.notes == ["1 pictures without an annotation were left out: b.jpg, …"]


def test_a_size_that_is_not_given_is_the_picture_s_as_shown(tmp_path: Path) -> None:
    write(tmp_path, a_JPG=picture(rotated=True), a_XML=xml(thing(), size="<width>0</width><height>0</height>"))
    found = only(tmp_path)
    assert (found.width, found.height) == (30, 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation><object>", "not XML"),
        ("<html/>", "its root is <html>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "XML entities"),
        (xml(thing(box=("x", 1, 2, 3))), "xmin of object 1 ('cat') is 'x', not a number"),
        (xml(thing(), thing(box=(1, "inf", 2, 3))), "ymin of object 2 ('cat') is 'inf', not a number"),
        (xml("<object><name>cat</name></object>"), "object 1 ('cat') has no bndbox"),
        (xml(thing(label=" ")), "object 1 has no name"),
    ],
)
def test_broken_voc_files_are_told_by_name(tmp_path: Path, content: str, reason: str) -> None:
    found = reasons(write(tmp_path, a_JPG=picture(), a_XML=content))
    assert list(found) == ["a.xml"]
    assert reason in found["a.xml"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("entity", ['<!ENTITY b "c">', '<!ENTITY b SYSTEM "secret.txt">', '<!ENTITY % b "c">'])
def test_xml_entities_are_refused_in_any_encoding(tmp_path: Path, entity: str, encoding: str) -> None:
    content = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [{entity}]>{xml(thing())}'
    (write(tmp_path, a_JPG=picture()) / "a.xml").write_bytes(content.encode(encoding))
    assert "XML entities" in reasons(tmp_path)["a.xml"]


def test_a_voc_file_in_utf_16_is_read(tmp_path: Path) -> None:
    (write(tmp_path, a_JPG=picture()) / "a.xml").write_bytes(xml(thing()).encode("utf-16"))
    assert list(only(tmp_path).labels) == ["cat"]


def test_a_voc_file_whose_picture_is_missing_is_told(tmp_path: Path) -> None:
    source, found = read(write(tmp_path, a_JPG=picture(), a_XML=xml(thing()), gone_XML=xml(thing(), name="gone.png")))
    assert list(found) == ["a.jpg"]
    assert source.rejected == [("gone.xml", "annotates gone.png, but there is no such picture")]


def test_a_picture_that_is_annotated_twice_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, JPEGImages__a_JPG=picture(), one__a_XML=xml(thing()), two__a_XML=xml(thing("dog")))
    assert reasons(tmp_path) == {"JPEGImages/a.jpg": "annotated twice: by one/a.xml and by two/a.xml"}


@pytest.mark.skipif(not BCCD.exists(), reason="../shared/data is absent")
def test_real_voc_is_read_whole() -> None:
    source, found = read(BCCD / "val.zip")
    assert (len(found), source.rejected, source.notes) == (87, [], [])
    bad = []
    for name, example in found.items():
        try:
            check_objects(parse_target(example.target or b""), (640, 480), ("RBC", "WBC", "Platelets"))
        except BadExampleError as error:
            bad.append(f"{name}: {error}")
    assert bad == ["JPEGImages/BloodImage_00338.jpg: object 13 ('RBC'): its box (504, 337, 504, 337) has no area"]


def test_a_source_without_annotations_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no annotations. Give COCO JSON .* or Pascal VOC"):
        read(write(tmp_path, a_JPG=picture()))


# --- what is checked of any target


def annotation(box: list[float], label: str = "cat") -> Annotation:
    one = {"label": label, "box": box, "crowd": False, "difficult": False}
    return parse_target(json.dumps({"width": 40, "height": 30, "objects": [one]}).encode())


def test_boxes_just_outside_are_clipped() -> None:
    found = annotation([-1, -2, 41.5, 30])
    assert found.boxes.tolist() == [[0, 0, 40, 30]]
    check_objects(found, (40, 30), ("cat",))


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([10, 5, 4, 20], "is inverted"),
        ([10, 25, 14, 20], "is inverted"),
        ([10, 5, 10, 20], "has no area"),
        ([-3, 5, 10, 20], "leaves the picture of 40 x 30 px by more than 2 px"),
        ([10, 5, 20, 33], "leaves the picture"),
        ([100, 100, 120, 120], "leaves the picture"),
    ],
)
def test_boxes_that_are_none_are_refused(box: list[float], reason: str) -> None:
    with pytest.raises(BadExampleError, match=reason) as refused:
        check_objects(annotation(box), (40, 30), None)
    assert str(refused.value).startswith("object 1 ('cat'): its box (")


def test_other_sizes_and_other_classes_are_refused() -> None:
    with pytest.raises(BadExampleError, match="annotated as 40 x 30 px, but the picture has 30 x 40"):
        check_objects(annotation([1, 1, 5, 5]), (30, 40), None)
    with pytest.raises(BadExampleError, match=r"a 'cow', which is not one of data.labels \(cat, dog\)"):
        check_objects(annotation([1, 1, 5, 5], "cow"), (40, 30), ("cat", "dog"))


@pytest.mark.parametrize("target", [b"", b"\xff", b"[]", b"{}", b'{"width": 1, "height": 1, "objects": [{}]}'])
def test_what_is_no_target_is_refused(target: bytes) -> None:
    with pytest.raises(BadExampleError, match="not a target"):
        parse_target(target)
