"""COCO JSON in every layout that people deliver, and what is wrong with it in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as pycoco

from models.common.errors import UserError
from models.common.objects.annotations import parse_target
from models.common.objects.masks import Rle
from tests.test_annotations import only, picture, read, reasons, write

HEART = [[10.0, 4.5, 31.0, 8.0, 25.5, 20.0, 12.0, 18.0]]


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
    captions: dict[str, list[Any]] = {"images": [], "annotations": []}
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
