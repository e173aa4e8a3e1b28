"""COCO JSON: one file for many pictures.

    annotations/instances_train2017.json  train2017/1.jpg     as COCO's own; the split is in the file's name
    train/_annotations.coco.json  train/1.jpg                 as labelling sites write it; the folder is the split
    coco.json  images/1.jpg                                   `file_name` may hold folders, also another machine's

Boxes are x, y, width, height in px. A segmentation is a list of polygons (x, y, x, y, …), or run lengths as a list or
as text; polygons become the very masks that pycocotools makes of them.
"""

import json
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.common.data.sources import Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example
from models.common.objects.annotations import Object, parse_number, write_target
from models.common.objects.masks import Rle, read_rle
from models.common.objects.picture_lookup import PictureIndex, picture_size, split_of_name, split_of_path, stem

REQUIRED_KEYS = ("images", "annotations", "categories")
MAX_COORDINATE = 1e5  # px: a polygon further out is no part of any picture, and costs memory for each px of its edge


@dataclass
class _Entry:
    """A picture as a COCO file names it."""

    name: str
    file: str  # path of the JSON
    size: tuple[int, int] | None
    split: str | None
    categories: Mapping[str, str]
    annotations: list[Any] = field(default_factory=list)


def examples(source: Source, extensions: Collection[str], masks: bool) -> Iterator[Example]:
    """Every picture that a COCO file names; one without annotations is an example without objects."""
    pictures = PictureIndex(source.paths, extensions)
    plan = _plan(source, pictures)
    if not plan and not source.rejected:
        raise UserError(f"{source.path}: its COCO JSON names no picture that is in it")
    unnamed = [path for path in pictures.paths if path not in plan]
    if unnamed:
        source.notes.append(f"{len(unnamed)} pictures that no COCO file names were left out: {unnamed[0]}, …")
    source.total = len(plan)
    for path, payload in source.stream(plan):
        try:
            target = _target(plan[path], payload, masks)
        except BadExampleError as error:
            source.reject(path, str(error))
            continue
        yield Example(path, payload, split=plan[path].split or split_of_path(path), target=target)


def _target(entry: _Entry, payload: bytes, masks: bool) -> bytes:
    width, height = entry.size or picture_size(payload)
    return write_target(
        width, height, [_object(one, entry.categories, width, height, masks) for one in entry.annotations]
    )


def _plan(source: Source, pictures: PictureIndex) -> dict[str, _Entry]:
    """Picture: what its COCO file says of it."""
    entries: dict[str, list[_Entry]] = defaultdict(list)
    for file, content in _contents(source).items():
        for entry in _entries(source, file, content):
            try:
                path = pictures.find(entry.name, file, _hint(file))
            except BadExampleError as error:
                source.reject(entry.name, f"in {file}: {error}")
                continue
            if path is None:
                source.reject(entry.name, f"named in {file}, but there is no such picture")
            else:
                entries[path].append(entry)
    for path, duplicates in entries.items():
        if len(duplicates) > 1:
            source.reject(
                path, f"named {len(duplicates)} times in {' and '.join(dict.fromkeys(one.file for one in duplicates))}"
            )
    return {path: duplicates[0] for path, duplicates in entries.items() if len(duplicates) == 1}


def _hint(file: str) -> str:
    """The folder that holds the pictures of annotations/instances_train2017.json: train2017."""
    return stem(file).rpartition("_")[2]


def _contents(source: Source) -> dict[str, dict[str, Any]]:
    """JSON files of annotated objects; `instances_*` alone where there are any, beside captions and keypoints."""
    files = [path for path in source.paths if path.lower().endswith(".json")]
    instances = [path for path in files if stem(path).lower().startswith("instances")]
    contents = {}
    for path, payload in source.stream(set(instances or files)):
        content = _json(source, path, payload)
        if isinstance(content, dict) and all(isinstance(content.get(name), list) for name in REQUIRED_KEYS):
            contents[path] = content
        else:
            source.notes.append(f"{path} is no COCO file with {', '.join(REQUIRED_KEYS)}; it was left out")
    if not contents:
        raise UserError(
            f"{source.path}: none of its JSON files has the lists {', '.join(REQUIRED_KEYS)} of a COCO file"
        )
    return contents


def _json(source: Source, path: str, payload: bytes) -> Any:
    try:
        return json.loads(payload.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source.path}: {path} is not JSON ({error}). Export it again") from None


def _entries(source: Source, file: str, content: Mapping[str, Any]) -> list[_Entry]:
    categories = _categories(file, content["categories"])
    split = split_of_name(stem(file)) or split_of_path(file)
    entries: dict[str, _Entry] = {}
    orphans = []
    for image in content["images"]:
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or "id" not in image:
            raise UserError(f"{file}: an entry of images has no id or no file_name: {str(image)[:80]}")
        name = unicodedata.normalize("NFC", image["file_name"])
        if _key(image["id"]) in entries:
            raise UserError(
                f"{file}: two pictures have the id {image['id']}: {entries[_key(image['id'])].name}, {name}"
            )
        entries[_key(image["id"])] = _Entry(name, file, _size(image), split, categories)
    for annotation in content["annotations"]:
        key = _key(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if key in entries:
            entries[key].annotations.append(annotation)
        else:
            orphans.append(annotation)
    if orphans:
        message = f"{len(orphans)} annotations in {file} are of pictures that it does not name, and were left out"
        source.notes.append(f"{message}: {str(orphans[0])[:80]}")
    return list(entries.values())


def _key(value: Any) -> str:
    return f"{value}"  # a number in one list, the same as text in the other: seen in exports


def _categories(file: str, categories: list[Any]) -> dict[str, str]:
    names = {}
    for category in categories:
        try:
            name = unicodedata.normalize("NFC", category["name"]).strip()
            names[_key(category["id"])] = name
        except (TypeError, KeyError, ValueError):
            name = ""
        if not name:
            raise UserError(f"{file}: an entry of categories has no id or no name: {str(category)[:80]}")
    return names


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 < height else None


def _object(
    annotation: Mapping[str, Any], categories: Mapping[str, str], width: int, height: int, masks: bool
) -> Object:
    annotation_name = f"annotation {annotation.get('id', '')}".strip()
    category = _key(annotation.get("category_id"))
    if category not in categories:
        known = ", ".join(f"{id} ({name})" for id, name in list(categories.items())[:8])
        raise BadExampleError(f"{annotation_name} has the category_id {category}, which is not listed. Listed: {known}")
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise BadExampleError(f"{annotation_name} has no bbox of four numbers")
    x, y, box_width, box_height = (parse_number(value, f"bbox of {annotation_name}") for value in box)
    mask = _mask(annotation.get("segmentation"), width, height, annotation_name) if masks else None
    return Object(
        categories[category], (x, y, x + box_width, y + box_height), crowd=bool(annotation.get("iscrowd")), mask=mask
    )


def _mask(segmentation: Any, width: int, height: int, annotation_name: str) -> Rle | None:
    """None where there is none. BadExampleError where it cannot be read."""
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, dict):
            return read_rle(segmentation)
        return from_polygons(segmentation, width, height)
    except BadExampleError as error:
        raise BadExampleError(f"{annotation_name}: {error}") from None


def from_polygons(polygons: Any, width: int, height: int) -> Rle:
    """The mask of [[x, y, x, y, …], …] in px, as pycocotools draws it."""
    from pycocotools import mask as coco_mask

    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise BadExampleError("segmentation is neither a list of polygons nor run lengths")
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise BadExampleError(f"polygon of {len(polygon)} numbers; it needs at least 3 points, x and y each")
        if max(abs(parse_number(value, "a polygon's coordinate")) for value in polygon) > MAX_COORDINATE:
            raise BadExampleError(f"polygon with a coordinate beyond {MAX_COORDINATE:g} px")
    merged = coco_mask.merge(coco_mask.frPyObjects([list(map(float, polygon)) for polygon in polygons], height, width))
    return Rle(height, width, merged["counts"].decode())
