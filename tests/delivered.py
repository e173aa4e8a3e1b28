"""Data of any kind as it is after `ratchet add`, without git and DVC: for tests that train on a delivery."""

import hashlib
from pathlib import Path
from typing import Any

from models.common.data.batches import read_manifest
from models.common.data.sources import Source
from models.common.kind import AnyTrainJob, Example, Kind, TrainJob
from models.common.params import DataParams
from tasks.adding.batch_file import BatchFile, write_index
from tasks.adding.intake import split_of


def write_batches(folder: Path, kind: Kind, data: DataParams, *sources: Path) -> Path:
    """`data/model` in `folder` with a batch for each source; every example must be good."""
    batches = folder / "data" / "model"
    batches.mkdir(parents=True)
    for path in sources:
        source = Source(path)
        examples = list(kind.examples(source, data))
        assert not source.rejected, source.rejected
        extra = set(source.columns) - {"bytes", *kind.COLUMNS}
        writer = BatchFile(batches / f"{source.slug}.parquet", kind.COLUMNS, extra, source.name, kind.TRUTH == "target")
        for example in examples:
            writer.append(_row(example, kind, data))
        write_index(writer.finish(()), batches / f"{source.slug}.index")
        md5 = hashlib.md5((batches / f"{source.slug}.parquet").read_bytes()).hexdigest()
        (batches / f"{source.slug}.parquet.dvc").write_text(f"outs:\n- md5: {md5}\n  path: {source.slug}.parquet\n")
    return batches


def _row(example: Example, kind: Kind, data: DataParams) -> dict[str, Any]:
    digest = hashlib.sha256(example.payload).hexdigest()
    split = example.split or split_of(example.group or digest, data.splits)
    common = {"id": digest, "file_name": example.file_name, "label": example.label, "split": split}
    rest: dict[str, Any] = {"group": example.group, "bytes": example.payload}
    if example.target is not None:
        rest |= {"target": example.target, "target_id": hashlib.sha256(example.target).hexdigest()}
    return {**(example.extra or {}), **common, **kind.inspect(example, data), **rest}


def job(root: Path, batches: Path, kind: Kind, data: DataParams, **train: Any) -> AnyTrainJob:
    """A training on `batches` that writes under `root`."""
    return TrainJob(
        model="model",
        data=data,
        train=kind.Train(**train),
        manifest=read_manifest(batches),
        batches=batches,
        out=root / "artifacts" / "model",
        home=root / ".ratchet",
        initial=None,
        provenance={"model": "model"},
    )
