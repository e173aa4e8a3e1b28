"""Scenes and their masks as data: which files belong together, what is recorded of them, what is checked over all."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.common.data.class_counts import write_counts
from models.common.data.drift import drift_expectation, drift_of_table
from models.common.data.metadata import METADATA_FILES, read_metadata
from models.common.data.sources import SPLIT_NAMES, Source
from models.common.errors import BadExampleError, UserError
from models.common.image.checks import inspect_image, photo_expectations
from models.common.image.decoding import EXTENSIONS
from models.common.kind import Example, Expectation
from models.common.segmentation.class_maps import decode_mask, embed_class_names, read_class_names
from models.semantic_segmentation.params import SegmentationData

if TYPE_CHECKING:
    import pandas as pd

CLASSES_FILE = "classes.txt"
IMAGES, MASKS = "images", "masks"
STANDARD_COLUMNS = frozenset({"file_name", "label", "split", "group"})
MAX_SHOWN_VALUES = 6  # values that an error lists


@dataclass(frozen=True)
class _Pair:
    picture: str
    mask: str
    names: tuple[str, ...]


def examples(source: Source, data: SegmentationData) -> Iterator[Example]:
    """Every picture in a folder `images` that has a mask of the same name in the folder `masks` beside it.

    Splits are folders above (train/images/1.jpg) or below (images/train/1.jpg), or columns of a metadata file.
    UserError where there are no such folders or no classes.txt; single files that cannot be used are rejected.
    """
    pairs = _pairs(source, _class_lists(source))
    metadata = _metadata(source, data.columns)
    source.total = len(pairs)
    masks = dict(source.stream({pair.mask for pair in pairs.values()}))  # a few kilobytes each, where photos are many
    for path, payload in source.stream(pairs):
        pair = pairs[path]
        if pair.mask not in masks:
            source.reject(path, f"its mask {pair.mask} cannot be read")
            continue
        row = dict(metadata.get(path, {}))
        split = row.get("split") or _split_of(path)
        extra = {name: value for name, value in row.items() if name not in STANDARD_COLUMNS}
        target = embed_class_names(masks.pop(pair.mask), pair.names)
        yield Example(path, payload, None, split, row.get("group") or None, extra, target)


def _class_lists(source: Source) -> dict[str, tuple[str, ...]]:
    """Folder -> class names of the classes.txt in it."""
    paths = {path for path in source.paths if path.rpartition("/")[2] == CLASSES_FILE}
    if not paths:
        raise UserError(
            f"{source.path} has no {CLASSES_FILE}: one class name a line, the first for pixels of value 0."
            f" Beside it, folders {IMAGES}/ and {MASKS}/ with files of the same names"
        )
    lists = {}
    for path, payload in source.stream(paths):
        lines = payload.decode("utf-8-sig", "replace").strip().splitlines()
        names = tuple(line.strip() for line in lines)
        if not all(names) or len(set(names)) < len(names) or len(names) > 256:
            raise UserError(f"{path} must have one class name a line, each once, no empty lines, at most 256")
        lists[path.rpartition("/")[0]] = names
    return lists


def _pairs(source: Source, lists: Mapping[str, tuple[str, ...]]) -> dict[str, _Pair]:
    """Picture -> what belongs to it. Pictures without a mask and masks without a picture are rejected."""
    pictures = {key: path for path in source.paths if _type(path) in EXTENSIONS and (key := _key(path, IMAGES))}
    masks = {key: path for path in source.paths if _type(path) in EXTENSIONS and (key := _key(path, MASKS))}
    if not pictures:
        raise UserError(f"{source.path} has no folder {IMAGES}/ with pictures in it, and masks in {MASKS}/ beside it")
    pairs = {}
    for key, picture in pictures.items():
        names = _nearest(lists, picture)
        if key not in masks:
            source.reject(picture, f"no mask: there is no {MASKS}/{key[-1]}.png")
        elif names is None:
            source.reject(picture, f"no {CLASSES_FILE} in a folder above it")
        else:
            pairs[picture] = _Pair(picture, masks[key], names)
    for key in masks.keys() - pictures.keys():
        source.reject(masks[key], f"a mask without its picture: there is no {IMAGES}/{key[-1]}.*")
    return pairs


def _key(path: str, folder: str) -> tuple[str, ...]:
    """What a picture and its mask have in common: all of the path but which of the two folders, and the type.

    Empty where the path is in no such folder.
    """
    *folders, name = path.split("/")
    depths = [depth for depth, step in enumerate(folders) if step.lower() == folder]
    if not depths:
        return ()
    folders[depths[-1]] = ""
    return (*folders, name.rpartition(".")[0])


def _nearest(lists: Mapping[str, tuple[str, ...]], path: str) -> tuple[str, ...] | None:
    folder = path
    while folder:
        folder = folder.rpartition("/")[0]
        if folder in lists:
            return lists[folder]
    return None


def _metadata(source: Source, columns: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """Picture -> its row of a metadata file: file_name, relative to it, split, group, further slices."""
    paths = {path for path in source.paths if path.rpartition("/")[2] in METADATA_FILES}
    rows: dict[str, Mapping[str, str]] = {}
    for path, payload in source.stream(paths):
        content = read_metadata(path, payload, {"label": "file_name", **columns})  # its label is the mask
        source.rejected += content.invalid_lines
        source.columns = tuple(dict.fromkeys([*source.columns, *(set(content.columns) - STANDARD_COLUMNS)]))
        folder = path.rpartition("/")[0]
        rows |= {f"{folder}/{row['file_name']}".removeprefix("/"): row for row in content.rows}
    missing = sorted(rows.keys() - set(source.paths))
    for path in missing:
        source.reject(path, "named in the metadata, but there is no such file")
    return rows


def _split_of(path: str) -> str | None:
    return next((SPLIT_NAMES[step.lower()] for step in path.split("/")[:-1] if step.lower() in SPLIT_NAMES), None)


def _type(path: str) -> str:
    return f".{path.rpartition('.')[2].lower()}"


def inspect(example: Example, data: SegmentationData) -> dict[str, Any]:
    """COLUMNS of one example, from decoding picture and mask whole. Raises BadExampleError with the reason."""
    columns = inspect_image(example.payload, data)
    target = example.target or b""
    values = decode_mask(target, data.max_pixels)
    names = read_class_names(target)
    height, width = values.shape
    if (width, height) != (columns["width"], columns["height"]):
        raise BadExampleError(
            f"mask of {width} x {height} px for a picture of {columns['width']} x {columns['height']} px"
        )
    counts = np.bincount(values.ravel(), minlength=256)
    _check_values(counts, names, data)
    pixels = {
        names[number]: int(counts[number])
        for number in np.flatnonzero(counts[: len(names)]).tolist()
        if not data.is_void(names[number], number)
    }
    if not pixels:
        raise BadExampleError("mask is void all over: there is nothing to learn or test")
    shares = {name: round(count / values.size, 6) for name, count in sorted(pixels.items())}
    return columns | {
        "classes": write_counts(dict.fromkeys(pixels, 1)),
        "shares": json.dumps(shares, ensure_ascii=False),
        "void_share": 1 - sum(pixels.values()) / values.size,
    }


def _check_values(counts: "np.ndarray[Any, Any]", names: tuple[str, ...], data: SegmentationData) -> None:
    unknown = [
        int(value) for value in np.flatnonzero(counts) if value >= len(names) and not data.is_void("", int(value))
    ]
    if unknown:
        more = f" and {len(unknown) - MAX_SHOWN_VALUES} more" if len(unknown) > MAX_SHOWN_VALUES else ""
        void = "".join(f", {each}" for each in data.void if isinstance(each, int) and each >= len(names))
        raise BadExampleError(
            f"mask holds {', '.join(map(str, unknown[:MAX_SHOWN_VALUES]))}{more};"
            f" {CLASSES_FILE} allows 0 to {len(names) - 1}{void}"
        )


def expectations(data: SegmentationData, manifest: "pd.DataFrame") -> list[Expectation]:
    """What holds for photos, void and the drift of classes. Adds the columns that they look at to `manifest`."""
    manifest["class_drift"] = _class_drift(manifest)
    between = "ExpectColumnValuesToBeBetween"
    return [
        *photo_expectations(data, manifest),
        Expectation(
            name="masks are not mostly void",
            expectation=between,
            kwargs={"column": "void_share", "max_value": data.max_void},
            severity="warn",
            remedy=f"a mask is void by more than max_void ({data.max_void}); see whether classes.txt fits the masks",
        ),
        drift_expectation(
            "class shares as before",
            "class_drift",
            data.max_drift,
            "the share of pixels of the classes",
            "see whether it shows other places or was labelled otherwise",
        ),
    ]


def _class_drift(manifest: "pd.DataFrame") -> "pd.Series[float]":
    """Per row, how far its batch moves the shares of pixels: all batches against all the others (as batch_drift)."""
    import pandas as pd

    pixels: dict[str, Counter[str]] = {}
    areas = manifest["width"].to_numpy(float) * manifest["height"].to_numpy(float)
    for batch, text, area in zip(manifest["batch"], manifest["shares"], areas, strict=True):
        shares = {name: round(share * area) for name, share in json.loads(text).items()}
        pixels.setdefault(batch, Counter()).update(shares)
    table = pd.DataFrame({name: dict(counts) for name, counts in pixels.items()}).fillna(0.0)
    return drift_of_table(manifest["batch"], table)
