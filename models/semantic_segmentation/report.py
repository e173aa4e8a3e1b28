"""The report's sections on masks: how well each class is found, what is taken for what, the worst pictures."""

from collections import Counter
from collections.abc import Hashable, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.image.decoding import decode_resized, open_image, upright_size
from models.common.kind import ReportJob, ReportSection
from models.common.reporting.examples import file_names, shown_payloads
from models.common.reporting.image import MAX_PIXELS, jpeg_uri
from models.common.segmentation.class_maps import IGNORE_INDEX, ClassMap, decode_png, palette, resize_class_map
from models.common.segmentation.metrics import GROUND_TRUTH, class_ious, known_classes, pixel_counts
from models.semantic_segmentation.dataset import class_map
from models.semantic_segmentation.params import SegmentationData

SHOWN_CONFUSIONS = 15
SHOWN_PICTURES = 8
THUMBNAIL = 260  # px, wider side
OPACITY = 0.6  # of a class colour over the photo
WRONG_COLOUR, VOID_COLOUR = (214, 39, 40), (128, 128, 128)
SWATCH_CSS = "display:inline-block;width:.8em;height:.8em;border-radius:3px;margin-right:.4em;background:"
Picture = NDArray[np.uint8]


def report(job: ReportJob) -> list[ReportSection]:
    """IoU by class, pixels confused, and masks over the pictures that came out worst."""
    return [
        ReportSection("Classes", _classes(job)),
        ReportSection("Confused pixels", _confusions(job)),
        ReportSection("Worst pictures", _worst(job)),
    ]


def _classes(job: ReportJob) -> str:
    """IoU of each class, with the champion's beside it."""
    candidate_ious = class_ious(job.candidate)
    champion_ious = {} if job.champion is None else class_ious(job.champion)
    labelled = pixel_counts(job.candidate, GROUND_TRUTH).sum(axis=0)
    shares = dict(zip(known_classes(job.candidate), labelled / max(labelled.sum(), 1), strict=True))
    colours = _class_colours(job.labels)
    rows = []
    for name in sorted(candidate_ious, key=lambda name: -shares[name]):
        cells = [f"{shares[name]:.1%}", f"{candidate_ious[name]:.3f}"]
        if job.champion is not None:
            champion_iou = champion_ious.get(name)
            cells += [
                "" if champion_iou is None else f"{champion_iou:.3f}",
                "" if champion_iou is None else f"{candidate_ious[name] - champion_iou:+.3f}",
            ]
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        rows.append(f"<tr><td>{_swatch(colours.get(name, VOID_COLOUR))}{escape(name)}</td>{numbers}</tr>")
    head = ["share of pixels", "candidate", *([] if job.champion is None else ["champion", "gain"])]
    heads = "".join(f'<th class="n">{name}</th>' for name in head)
    text = "Intersection over union of each class, over all labelled pixels of the test pictures; void is left out."
    return f"<p>{text}</p><table><thead><tr><th>class</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _confusions(job: ReportJob) -> str:
    """The pairs that most pixels are confused between, with the champion's count beside them."""
    pairs = _pairs(job.candidate)
    if not pairs:
        return "<p>No labelled pixel was taken for another class.</p>"
    champion_pairs = None if job.champion is None else _pairs(job.champion)
    total = int(job.candidate["labelled_pixels"].sum())
    rows = []
    for name, count in pairs.most_common(SHOWN_CONFUSIONS):
        champion_cell = "" if champion_pairs is None else f'<td class="n">{champion_pairs[name] / total:.2%}</td>'
        rows.append(f'<tr><td>{escape(name)}</td><td class="n">{count / total:.2%}</td>{champion_cell}</tr>')
    head = '<th>is … as …</th><th class="n">candidate</th>'
    head += "" if champion_pairs is None else '<th class="n">champion</th>'
    text = "Shares of all labelled pixels. A pair of classes with a blurred border comes first where borders are long."
    return f"<p>{text}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _pairs(table: pd.DataFrame) -> Counter[str]:
    counts: Counter[str] = Counter()
    for names, pixels_of in zip(table["confused"], table["confused_pixels"], strict=True):
        counts.update(dict(zip(names, map(int, pixels_of), strict=True)))
    return counts


def _worst(job: ReportJob) -> str:
    worst = job.candidate.nsmallest(SHOWN_PICTURES, "picture_iou")
    photos = shown_payloads(job, worst, f"The {len(worst)} pictures")
    if isinstance(photos, str):
        return photos
    targets = shown_payloads(job, worst, f"The {len(worst)} pictures", "target")
    if isinstance(targets, str):
        return targets
    files = file_names(job)
    known = () if job.champion is None else zip(job.champion["id"], job.champion["picture_iou"], strict=True)
    champion_ious = dict(known)
    rows = "".join(
        _row(row, photo, target, files.get(row["id"], ""), champion_ious.get(row["id"]), job.labels)
        for row, photo, target in zip(worst.to_dict("records"), photos, targets, strict=True)
    )
    legend = " ".join(
        f'<span style="white-space:nowrap">{_swatch(colour)}{escape(name)}</span>'
        for name, colour in _class_colours(job.labels).items()
    )
    text = (
        f"The {len(worst)} pictures of the lowest mean IoU, the worst first: photo, truth, answer, and where the answer"
        " is wrong (red; grey is void). A mask that is wrong in the data shows up here, too."
    )
    return f'<p>{text}</p><p>{legend}</p><div class="figure">{rows}</div>'


def _row(
    row: Mapping[Hashable, Any],
    photo: bytes,
    target: bytes,
    file: str,
    champion_iou: float | None,
    labels: tuple[str, ...],
) -> str:
    image = open_image(photo, MAX_PIXELS)
    size = upright_size(image)
    factor = THUMBNAIL / max(size)
    width, height = (max(1, round(side * factor)) for side in size)
    picture = decode_resized(image, width, height)
    data = SegmentationData(max_pixels=MAX_PIXELS, void=())  # what is not among the labels was void
    truth = resize_class_map(class_map(target, labels, data), width, height)
    answer = resize_class_map(decode_png(bytes(row["mask"])), width, height)
    void = truth == IGNORE_INDEX
    wrong = np.where(
        void[..., None], VOID_COLOUR, np.where((truth != answer)[..., None], WRONG_COLOUR, picture // 2 + 100)
    )
    parts = [
        picture,
        overlay(picture, truth, len(labels)),
        overlay(picture, answer, len(labels)),
        wrong.astype(np.uint8),
    ]
    images = "".join(f'<img alt="" style="width:24%;margin:0 .5% 0 0" src="{jpeg_uri(part)}">' for part in parts)
    champion = "" if champion_iou is None else f", champion {champion_iou:.3f}"
    location = escape(f"{file} in {row['batch']}")
    caption = f"<b>{row['picture_iou']:.3f}</b>{champion} <span class=soft>{location}</span>"
    return f'<figure style="margin:0 0 1.2em;max-width:none">{images}<figcaption>{caption}</figcaption></figure>'


def overlay(picture: Picture, values: ClassMap, classes: int) -> Picture:
    """(H, W, 3): class colours over a photo; where void, the photo alone."""
    table = np.zeros((256, 3), np.uint8)
    table[:classes] = palette(classes)
    mixed = (1 - OPACITY) * picture + OPACITY * table[values]
    return np.where((values == IGNORE_INDEX)[..., None], picture, mixed).astype(np.uint8)


def _class_colours(labels: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(colour) for name, colour in zip(labels, palette(len(labels)).tolist(), strict=True)}


def _swatch(colour: tuple[int, ...]) -> str:
    return f'<span style="{SWATCH_CSS}rgb{colour}"></span>'
