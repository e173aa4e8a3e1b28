"""Annotated pictures in any of the layouts that people deliver, as examples."""

from collections.abc import Collection, Iterator

from models.common.data.sources import Source
from models.common.errors import UserError
from models.common.kind import Example
from models.common.objects import coco, voc


def annotated_pictures(source: Source, extensions: Collection[str], masks: bool = False) -> Iterator[Example]:
    """Every annotated picture with one of these extensions (".jpg"), in the source's order: COCO JSON or Pascal VOC.

    `masks`: whether targets hold the masks of objects, too (COCO only).

    UserError where the source holds neither; single files that cannot be used go to `source.reject`.
    """
    names = [path.lower() for path in source.paths]
    if any(name.endswith(".json") for name in names):
        return coco.examples(source, extensions, masks)
    if any(name.endswith(".xml") for name in names):
        return voc.examples(source, extensions)
    raise UserError(
        f"{source.path} holds no annotations. Give COCO JSON (annotations/instances_train.json beside the pictures)"
        " or Pascal VOC (Annotations/*.xml beside JPEGImages/)"
    )
