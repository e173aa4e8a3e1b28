"""Annotations: Pascal VOC and COCO in every layout that people deliver, and what is wrong with them in one line."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco

from models.common.annotations import Annotation, annotated_pictures, check_objects, parse_target
from models.common.errors import BadExampleError, UserError
from models.common.images import EXTENSIONS
from models.common.kind import Example
from models.common.masks import Rle, encode, read_rle
from models.common.sources import Source
from tests.conftest import CODE

BCCD = CODE.parent / "shared/data/bccd"
HEART = [[10.0, 4.5, 31.0, 8.0, 25.5, 20.0, 12.0, 18.0]]


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


def coco(*annotations: dict[str, Any], names: tuple[str, ...] = ("1.jpg",), **image: Any) -> dict[str, Any]:
    """A COCO file; annotations are of the first picture, category 7 is a cat, 9 a dog."""
    full = [
        {"id": number, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0} | one
        for number, one in enumerate(annotations, 1)
    ]
    pictures = [
        {"id": number, "file_name": name, "width": 40, "height": 30} | image for number, name in enumerate(names, 1)
    ]
    return {
        "images": pictures,
        "annotations": full,
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    }


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
    files = {
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
    files = {f"VOC__JPEGImages__{name}_JPG": picture() for name in "abc"}
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
    files = {f"{split}__images__1_JPG": picture(40, height) for split, height in (("train", 30), ("val", 31))}
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


# --- COCO


@pytest.mark.parametrize(
    ("file", "image", "name", "split"),
    [
        ("annotations/instances_train2017.json", "train2017/1.jpg", "1.jpg", "train"),
        ("annotations/instances_val.json", "images/val/1.jpg", "val/1.jpg", "val"),
        ("valid/_annotations.coco.json", "valid/1.jpg", "1.jpg", "val"),
        ("set/coco.json", "set/images/1.jpg", "./images/1.jpg", None),
        ("coco.json", "images/1.jpg", "C:\\Users\\me\\1.jpg", None),
        ("coco.json", "test/1.jpg", "1.jpg", "test"),
    ],
)
def test_coco_layouts(tmp_path: Path, file: str, image: str, name: str, split: str | None) -> None:
    write(tmp_path, **{image.replace("/", "__").replace(".jpg", "_JPG"): picture()})
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(coco({}, {"category_id": 9, "iscrowd": 1}, names=(name,))))
    source, found = read(tmp_path)
    assert (list(found), source.rejected, found[image].split) == ([image], [], split)
    objects = parse_target(found[image].target or b"")
    assert objects.labels == ("cat", "dog")
    assert objects.boxes.tolist() == [[1, 2, 4, 6]] * 2
    assert objects.ignored.tolist() == objects.crowd.tolist() == [False, True]


def test_coco_pictures_of_one_name_are_told_apart_by_the_split_of_their_file(tmp_path: Path) -> None:
    write(tmp_path, train__1_JPG=picture(), val__1_JPG=picture(41, 30))
    write(tmp_path, annotations__instances_train_JSON=coco({}), annotations__instances_val_JSON=coco(width=41))
    found = read(tmp_path)[1]
    assert {name: one.split for name, one in found.items()} == {"train/1.jpg": "train", "val/1.jpg": "val"}
    assert [parse_target(one.target or b"").width for one in found.values()] == [40, 41]


def test_a_coco_picture_without_annotations_has_no_objects(tmp_path: Path) -> None:
    found = only(write(tmp_path, a_JSON=coco(), **{"1_JPG": picture()}))
    assert (found.labels, found.boxes.shape, found.counts) == ((), (0, 4), {})


def test_captions_and_keypoints_beside_instances_are_passed_over(tmp_path: Path) -> None:
    captions = {"images": [], "annotations": []}
    write(tmp_path, instances_val_JSON=coco({}), captions_val_JSON=captions, **{"1_JPG": picture()})
    assert only(tmp_path).labels == ("cat",)


def test_polygons_and_both_run_lengths_are_the_same_mask(tmp_path: Path) -> None:
    drawn = pycoco.merge(pycoco.frPyObjects(HEART, 30, 40))
    mask = pycoco.decode(drawn).astype(bool)
    flat = mask.T.reshape(-1)
    runs = np.diff(np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1], [True]]))).tolist()
    counts = {"size": [30, 40], "counts": runs}
    text = {"size": [30, 40], "counts": drawn["counts"].decode()}
    write(tmp_path, a_JSON=coco(*({"segmentation": one} for one in (HEART, counts, text))), **{"1_JPG": picture()})
    found = only(tmp_path, masks=True)
    assert len(set(found.masks)) == 1
    assert isinstance(found.masks[0], Rle)
    assert np.array_equal(found.masks[0].array(), mask)
    assert only(tmp_path).masks == (None,) * 3


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"category_id": 8}, "annotation 1 has the category_id 8, which is not listed. Listed: 7 (cat), 9 (dog)"),
        ({"category_id": [7]}, "category_id [7], which is not listed"),
        ({"bbox": [1, 2, 3]}, "annotation 1 has no bbox of four numbers"),
        ({"bbox": [1, 2, 3, None]}, "bbox of annotation 1 is 'None', not a number"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox of annotation 1 is 'nan', not a number"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 1: polygon of 4 numbers; it needs at least 3 points"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "polygon of 7 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e30]]}, "polygon with a coordinate beyond"),
        ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "coordinate is 'x', not a number"),
        ({"segmentation": [1, 2, 3]}, "neither a list of polygons nor run lengths"),
        ({"segmentation": {"size": [30, 40], "counts": [1, 2]}}, "mask of 3 px; its size says 40 x 30"),
        ({"segmentation": {"size": [30, 40], "counts": [1300, -100]}}, "run length that is no whole number"),
        ({"segmentation": {"size": [30, 40], "counts": "\x7f\x7f"}}, "not COCO's compressed run lengths"),
        ({"segmentation": {"size": [30, 40], "counts": "o"}}, "end in the middle of a number"),
        ({"segmentation": {"size": [30], "counts": [1]}}, "it must be [height, width]"),
        ({"segmentation": {"size": [30, 40], "counts": 3}}, "neither text nor a list"),
    ],
)
def test_bad_coco_annotations_are_told_with_their_picture(
    tmp_path: Path, annotation: dict[str, Any], reason: str
) -> None:
    found = reasons(write(tmp_path, a_JSON=coco(annotation), **{"1_JPG": picture()}), masks=True)
    assert list(found) == ["1.jpg"]
    assert reason in found["1.jpg"]
    assert "\n" not in found["1.jpg"]


def test_coco_pictures_that_are_missing_or_named_twice_are_told(tmp_path: Path) -> None:
    write(tmp_path, a_JSON=coco(names=("1.jpg", "gone.jpg", "2.jpg", "2.jpg")))
    source, found = read(write(tmp_path, **{"1_JPG": picture(), "2_JPG": picture()}))
    assert list(found) == ["1.jpg"]
    assert dict(source.rejected) == {
        "gone.jpg": "named in a.json, but there is no such picture",
        "2.jpg": "named 2 times in a.json",
    }


def test_pictures_that_no_coco_file_names_and_stray_annotations_are_told(tmp_path: Path) -> None:
    write(tmp_path, a_JSON=coco({}, {"image_id": 5}), **{"1_JPG": picture(), "2_JPG": picture()})
    source, found = read(tmp_path)
    assert list(found) == ["1.jpg"]
    assert source.notes[0].startswith("1 annotations in a.json are of pictures that it does not name")
    assert source.notes[1] == "1 pictures that no COCO file names were left out: 2.jpg, …"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"images": [', "a.json is not JSON (Expecting value: line 1"),
        ("[" * 100_000, "a.json is not JSON"),
        ("[1, 2]", "none of its JSON files has the lists images, annotations, categories"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "an entry of images has no id or no file_name"),
        ({"images": [], "annotations": [], "categories": [{"id": 1}]}, "an entry of categories has no id or no name"),
        (coco({}, names=("3.jpg",)) | {"images": []}, "names no picture that is in it"),
        (coco({}, names=("1.jpg", "2.jpg"), id=4), "two pictures have the id 4: 1.jpg, 2.jpg"),
    ],
)
def test_broken_coco_files_are_refused_in_one_line(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, a_JSON=content, **{"1_JPG": picture()}))
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


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


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_those_of_pycocotools(share: float) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random((seed + 1, 300)) < share
        ours, theirs = encode(mask), pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert ours.counts == theirs["counts"].decode()
        assert read_rle(ours.coco) == ours
        assert np.array_equal(ours.array(), mask)
        assert ours.area == mask.sum()
        x, y, width, height = pycoco.toBbox(theirs).tolist()
        assert ours.box == (x, y, x + width, y + height)
