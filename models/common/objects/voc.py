"""Pascal VOC: one XML file for each picture.

    JPEGImages/1.jpg  Annotations/1.xml       as Pascal's own
    ImageSets/Main/{train,val,test}.txt       names the pictures of each split
    1.jpg  1.xml                              beside one another, as labelling tools write them
    train/…  val/…  test/…                    the folder is the split

VOC counts pixels from 1 and includes the last one: xmin 1, xmax 640 covers a picture of 640 px. A box becomes edges by
x1 = xmin - 1, x2 = xmax. Tools that count from 0 come out a pixel too far to the left, which `parse_target` clips.
"""

import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from models.common.data.sources import SPLIT_NAMES, Source
from models.common.errors import BadExampleError, UserError
from models.common.kind import Example
from models.common.objects.annotations import Object, parse_number, write_target
from models.common.objects.picture_lookup import PictureIndex, picture_size, split_of_path, stem

SPLIT_LISTS = "ImageSets/Main/"


@dataclass(frozen=True)
class _VocAnnotation:
    picture: str  # file name that the XML gives; ""
    size: tuple[int, int] | None  # (width, height)
    objects: tuple[Object, ...]
    annotation: str  # path of the XML


def examples(source: Source, extensions: Collection[str]) -> Iterator[Example]:
    """Every picture that an XML file annotates."""
    pictures = PictureIndex(source.paths, extensions)
    splits = _listed_splits(source)
    plan = _plan(source, pictures)
    if not plan and not source.rejected:
        raise UserError(f"{source.path} holds .xml files, but none is a Pascal VOC annotation of a picture in it")
    unannotated = [path for path in pictures.paths if path not in plan]
    if unannotated:
        source.notes.append(f"{len(unannotated)} pictures without an annotation were left out: {unannotated[0]}, …")
    source.total = len(plan)
    for path, payload in source.stream(plan):
        content = plan[path]
        try:
            width, height = content.size or picture_size(payload)
        except BadExampleError as error:
            source.reject(path, str(error))
            continue
        split = splits.get(stem(path)) or split_of_path(path)
        yield Example(path, payload, split=split, target=write_target(width, height, content.objects))


def _plan(source: Source, pictures: PictureIndex) -> dict[str, _VocAnnotation]:
    """Picture: what its annotation says."""
    plan: dict[str, _VocAnnotation] = {}
    duplicates: dict[str, str] = {}
    for path, payload in source.stream({path for path in source.paths if path.lower().endswith(".xml")}):
        try:
            content = _read(path, payload)
            picture = _picture(content, pictures)
        except BadExampleError as error:
            source.reject(path, str(error))
            continue
        if picture in plan:
            duplicates[picture] = path
        else:
            plan[picture] = content
    for picture, other in duplicates.items():
        source.reject(picture, f"annotated twice: by {plan.pop(picture).annotation} and by {other}")
    return plan


def _picture(content: _VocAnnotation, pictures: PictureIndex) -> str:
    """By the name of the XML file; tools leave stale names inside of it. Else by the name that it gives."""
    path = content.annotation
    match = pictures.find_by_stem(stem(path), path)
    if not match and content.picture:
        match = pictures.find(content.picture, path) or pictures.find_by_stem(stem(content.picture), path)
    if not match:
        raise BadExampleError(f"annotates {content.picture or stem(path)}, but there is no such picture")
    return match


def _read(path: str, payload: bytes) -> _VocAnnotation:
    try:
        root = fromstring(payload)
    except DefusedXmlException:  # whatever its encoding; entities can name files here and grow to any size
        raise BadExampleError("defines XML entities, which no annotation needs; refused") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadExampleError(f"not XML: {error}") from None
    if root.tag != "annotation":
        raise BadExampleError(f"not a Pascal VOC annotation: its root is <{root.tag}>, not <annotation>")
    objects = tuple(_object(one, index) for index, one in enumerate(root.findall("object"), 1))
    name = unicodedata.normalize("NFC", (root.findtext("filename") or "").strip())
    return _VocAnnotation(name, _size(root), objects, path)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """None where none is given; some tools write 0."""
    if root.find("size") is None:
        return None
    width, height = (parse_number(root.findtext(f"size/{side}"), f"size/{side}") for side in ("width", "height"))
    return (int(width), int(height)) if width > 0 and height > 0 else None


def _object(element: ElementTree.Element, index: int) -> Object:
    label = unicodedata.normalize("NFC", (element.findtext("name") or "").strip())
    if not label:
        raise BadExampleError(f"object {index} has no name")
    if element.find("bndbox") is None:
        raise BadExampleError(f"object {index} ('{label}') has no bndbox")
    left, top, right, bottom = (
        parse_number(element.findtext(f"bndbox/{edge}"), f"{edge} of object {index} ('{label}')")
        for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    # One pixel wide is a slip of the mouse, not an object: it stays without area, and is reported.
    box = (left - (right > left), top - (bottom > top), right, bottom)
    return Object(label, box, difficult=(element.findtext("difficult") or "").strip() in ("1", "true"))


def _listed_splits(source: Source) -> dict[str, str]:
    """Stem of a picture: its split, as ImageSets/Main/{train,val,test}.txt say."""
    lists = {
        path: SPLIT_NAMES[stem(path).lower()]
        for path in source.paths
        if f"/{path}".rpartition("/")[0].endswith(f"/{SPLIT_LISTS[:-1]}") and stem(path).lower() in SPLIT_NAMES
    }
    splits: dict[str, str] = {}
    for path, payload in source.stream(set(lists)):
        for line in payload.decode("utf-8-sig", "replace").splitlines():
            if line.strip():
                name = line.split()[0]
                if splits.setdefault(name, lists[path]) != lists[path]:
                    raise UserError(
                        f"{source.path}: '{name}' is in two of the lists in {SPLIT_LISTS}; a picture is in one split"
                    )
    return splits
