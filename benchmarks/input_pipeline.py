"""From photos on disk to batches of normalised floats: ours beside DataLoader + PIL + `weights.transforms()`.

Both read the same JPEG photos and give (64, 3, 224, 224) float batches in a shuffled order, on every core. Ours decodes
each photo once, into a memory map (models/common/data/decoded_cache.py): the first epoch pays for that.
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageFilter

from models.common.data.batches import read_manifest
from models.common.image.normalisation import Normalised
from models.common.training.loop import prefetched
from models.common.training.memory import keep_freed_memory
from models.image_classification.dataset import pixels
from models.image_classification.learner import Photos

PHOTOS, SIZE, BATCH = 384, 224, 64
SIZES = ((640, 480), (1600, 1200))  # px as delivered: a webcam's, a small phone photo
LATER_EPOCHS = 5  # epochs after the first, of which the median counts


def run() -> list[dict[str, Any]]:
    """Photos per second in the first epoch and after, for photos of two sizes."""
    return [row for width, height in SIZES for row in _rows_of_size(width, height)]


def _rows_of_size(width: int, height: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_photos(root, width, height)
        theirs = _their_epochs(root)
        keep_freed_memory()  # as training does; after the peer, whose processes are not to have it
        ours = _our_epochs(root)
    size = f"{width} x {height} px"
    first = _row("first epoch", size, ours[0], theirs[0], "≥ 3")
    after = _row("each later epoch", size, statistics.median(ours[1:]), statistics.median(theirs[1:]), "≥ 20")
    return [first, after]


def _row(what: str, size: str, ours: float, theirs: float, target: str) -> dict[str, Any]:
    return {
        "benchmark": f"input pipeline, {what}",
        "ours": f"{PHOTOS / ours:.0f} photos/s",
        "peer": f"{PHOTOS / theirs:.0f} photos/s (DataLoader, {os.cpu_count()} workers)",
        "ratio": f"{theirs / ours:.1f}",
        "target": target,
        "note": f"{PHOTOS} JPEGs of {size} to {SIZE} px floats",
    }


def _our_epochs(root: Path) -> list[float]:
    start = time.perf_counter()
    manifest = read_manifest(root / "data")
    decoded = pixels(manifest, root / "data", root, SIZE, 50_000_000)
    photos = Photos(decoded, np.zeros(len(manifest), np.int64), torch.device("cpu"))
    open_seconds = time.perf_counter() - start
    first, *later = (_timed(_our_batches(photos, epoch)) for epoch in range(1 + LATER_EPOCHS))
    return [open_seconds + first, *later]


def _our_batches(photos: Photos, epoch: int) -> Iterator[torch.Tensor]:
    normalise = Normalised(torch.nn.Identity()).normalise
    order = np.random.default_rng(epoch).permutation(PHOTOS)
    for pictures, _ in prefetched(photos.fetch, np.array_split(order, PHOTOS // BATCH)):
        yield normalise(pictures.float())


def _their_epochs(root: Path) -> list[float]:
    from torchvision.datasets import ImageFolder
    from torchvision.models import ResNet18_Weights

    folder = ImageFolder(str(root / "photos"), transform=ResNet18_Weights.IMAGENET1K_V1.transforms())
    loader = torch.utils.data.DataLoader(folder, BATCH, shuffle=True, num_workers=os.cpu_count() or 1)
    return [_timed(batch for batch, _ in loader) for _ in range(2)]


def _timed(batches: Iterator[torch.Tensor]) -> float:
    start = time.perf_counter()
    for batch in batches:
        assert batch.shape == (BATCH, 3, SIZE, SIZE)
    return time.perf_counter() - start


def _write_photos(root: Path, width: int, height: int) -> None:
    """The same photos as a class folder and as a batch: noise smoothed until it compresses as photos do."""
    folder = root / "photos" / "all"
    folder.mkdir(parents=True)
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(PHOTOS):
        small = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        picture = Image.fromarray(small).filter(ImageFilter.GaussianBlur(2)).resize((width, height))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
        row = {"id": str(number), "file_name": f"{number}.jpg", "label": "all", "split": "train", "group": str(number)}
        rows.append(row | {"source": "made", "bytes": buffer.getvalue()})
    table = pa.Table.from_pandas(pd.DataFrame(rows))
    pq.write_table(table, root / "data" / "a.parquet", row_group_size=256)
    pq.write_table(table.drop_columns(["bytes"]), root / "data" / "a.index")
    (root / "data" / "a.parquet.dvc").write_text("outs:\n- md5: 0123456789abcdef\n  path: a.parquet\n")


if __name__ == "__main__":
    for row in run():
        print(*(f"{name}: {value}" for name, value in row.items()), sep="\n")
