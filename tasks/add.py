"""Adds a folder, zip or tar of labelled files to a model's data: one immutable batch, versioned, committed, published.

read and decoded one file at a time -> bad rows and duplicates set aside -> <batch>.parquet and <batch>.index
-> dvc add -> git commit -> dvc push and git push, where remotes exist
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from models.common.data.arrow_columns import empty, hashes
from models.common.data.batches import SPLITS, batch_names, read_columns
from models.common.data.class_counts import read_counts
from models.common.data.near_duplicates import find_near_duplicates, has_earlier_near_duplicate
from models.common.data.sources import SPLIT_NAMES, Source
from models.common.errors import DataBlockedError, PublishError, RatchetError, UserError
from tasks.adding.batch_file import BatchFile, content_hash, write_index
from tasks.adding.inspection import inspected
from tasks.adding.intake import Intake, Known
from tasks.adding.quarantine import share_of_bad, write_quarantine
from tasks.adding.staging import disk_full_is_told, finish_interrupted
from tasks.project import paths, repository
from tasks.project.locks import lock, temporary_folder
from tasks.project.params import Model, load_model

ProgressCallback = Callable[
    [int, int], None
]  # (examples read so far, examples in the source or 0 while that is unknown)
COMPARED = (
    "id",
    "label",
    "target_id",
    "split",
    "group",
    "phash",
    "classes",
)  # what is read of the batches that are there
OURS = frozenset({"id", "source", "bytes", "target", "target_id", "batch", "row"})  # columns that no source can give


@dataclass(frozen=True)
class AddReport:
    """What came in, and what did not. `batch` is None where nothing new was in the source."""

    model: str
    source: Path
    batch: str | None
    rows: int  # in the source, good or bad
    added: int
    duplicates: int  # the same bytes and label, there already or twice in the source
    near_duplicates: int  # of the added: they look like an example that is there or that came earlier
    classes: dict[str, int]  # of the added
    splits: dict[str, int]
    quarantined: list[tuple[str, str]]  # (file, reason)
    quarantine_report: Path | None
    new_labels: tuple[str, ...]  # that no batch had before; empty for a model's first batch
    committed: bool
    pushed: bool
    seconds: float
    notes: tuple[str, ...]  # one line each: what the person should know


@dataclass(frozen=True)
class _Taken:
    source: Source
    intake: Intake
    index: pa.Table  # the rows that came in, without bytes
    existing: pa.Table
    dropped_columns: tuple[str, ...]

    @property
    def quarantined(self) -> list[tuple[str, str]]:
        return self.source.rejected + self.intake.quarantined

    @property
    def rows(self) -> int:
        return len(self.source.rejected) + self.intake.rows


def add(
    root: Path, model: str, source: Path, split: str | None = None, progress: ProgressCallback | None = None
) -> AddReport:
    """Adds `source` to `model`'s data as one batch; `split` puts all of it into one split.

    UserError: unknown model, unreadable source, detached HEAD, no git identity, no space left. DataBlockedError: more
    than `max_bad` of the rows are bad. Both leave nothing behind. PublishError: committed, but a remote refused it.
    """
    started = time.monotonic()
    params = load_model(root, model)
    split = _checked_split(split)
    repository.current_branch(root)
    repository.check_identity(root)
    home, folder = paths.home(root), root / "data" / model
    with lock(home, f"add/{model}"), disk_full_is_told(source):
        recovered = finish_interrupted(root, folder)
        with temporary_folder(home / "adding") as place:
            taken = _take_in(params, folder, Source(source), split, place, progress or _silent)
            quarantine = _quarantine(home, params, taken)
            batch = _keep(root, folder, taken, place) if len(taken.index) else None
    pushed = batch is not None and _publish(root, folder, batch)
    local = repository.reason_not_shared(root) if batch else None
    return AddReport(
        model=model,
        source=source,
        batch=batch,
        rows=taken.rows,
        added=len(taken.index),
        duplicates=taken.intake.duplicates,
        near_duplicates=_near_duplicates(params, taken),
        classes={label: count for label, count in sorted(taken.intake.classes.items()) if count},
        splits={name: _counts(taken.index, "split").get(name, 0) for name in SPLITS},
        quarantined=taken.quarantined,
        quarantine_report=quarantine,
        new_labels=_new_labels(taken),
        committed=batch is not None,
        pushed=pushed,
        seconds=time.monotonic() - started,
        notes=(*recovered, *taken.source.notes, *_notes(taken), *([local] if local else [])),
    )


def _silent(done: int, total: int) -> None:
    pass


def _checked_split(split: str | None) -> str | None:
    if split is None:
        return None
    if split not in SPLIT_NAMES:
        raise UserError(f"split '{split}' is none of {', '.join(SPLITS)}")
    return SPLIT_NAMES[split]


def _take_in(
    params: Model, folder: Path, source: Source, split: str | None, place: Path, progress: ProgressCallback
) -> _Taken:
    existing = _existing(folder)
    truth = params.kind.TRUTH
    intake = Intake(params.data, truth, split, Known(existing), _group_splits(existing))
    examples = params.kind.examples(source, params.data)
    ordered = inspected(examples, lambda example: params.kind.inspect(example, params.data), intake.known)
    writer: BatchFile | None = None
    own = OURS | set(params.kind.COLUMNS)
    try:
        for example, id, columns in ordered:
            if writer is None:  # only now has the kind read what columns there are
                extra = set(source.columns or example.extra or ()) - own
                writer = BatchFile(place / "batch.parquet", params.kind.COLUMNS, extra, source.name, truth == "target")
            row = intake.accept(example, id, columns)
            if row is not None:
                writer.append(row)
            progress(intake.rows, source.total)
        index = writer.finish(intake.dropped) if writer else empty(pa.schema([]))
    finally:
        if writer is not None:
            writer.close()
    if not intake.rows and not source.rejected:
        raise UserError(f"{source.path} holds no labelled example; see docs/adding-data.md for the layouts")
    return _Taken(source, intake, index, existing, tuple(sorted(own & set(source.columns))))


def _existing(folder: Path) -> pa.Table:
    """Every row that is there; `truth` is its label or the id of its target."""
    tables = [read_columns(folder, name, COMPARED) for name in batch_names(folder)]
    if not tables:
        return empty(pa.schema([(name, pa.string()) for name in (*COMPARED, "batch", "truth")]))
    rows = pa.concat_tables(tables)
    return rows.append_column("truth", rows["target_id" if "target_id" in rows.column_names else "label"])


def _group_splits(existing: pa.Table) -> dict[str, str]:
    grouped = existing.filter(existing["group"].is_valid())
    return dict(zip(grouped["group"].to_pylist(), grouped["split"].to_pylist(), strict=True))


def _quarantine(home: Path, params: Model, taken: _Taken) -> Path | None:
    """Writes the quarantine report; DataBlockedError where too much of the source is in it."""
    bad = taken.quarantined
    if not bad:
        return None
    report = write_quarantine(home / "quarantine" / params.name, taken.source.slug, bad)
    share = share_of_bad(bad, taken.rows)
    if share > params.data.max_bad or (not len(taken.index) and not taken.intake.duplicates):
        file, reason = bad[0]
        raise DataBlockedError(
            f"{taken.source.name} is refused: {len(bad)} of {taken.rows} rows are bad ({share:.1%}, allowed:"
            f" {params.data.max_bad:.1%}), the first {file}: {reason}. All of them: {report}. Nothing was added;"
            f" mend them or raise models.{params.name}.data.max_bad"
        )
    return report


def _keep(root: Path, folder: Path, taken: _Taken, place: Path) -> str:
    """Puts the batch where it belongs, into DVC and into a commit; on any failure none of it stays."""
    batch = f"{taken.source.slug}-{content_hash(taken.index)}"
    index, data = folder / f"{batch}.index", folder / f"{batch}.parquet"
    ours = [folder / f"{batch}.parquet.dvc", index, folder / ".gitignore"]
    new = [path for path in [*ours, data] if not path.exists()]
    try:
        _prepare(folder)
        write_index(taken.index, place / "batch.index")
        shutil.move(place / "batch.index", index)
        shutil.move(place / "batch.parquet", data)
        repository.dvc(root, "add", "--quiet", str(data.relative_to(root)))
        repository.commit(root, ours, _message(folder.name, batch, taken))
    except BaseException:  # also Ctrl-C
        _undo(root, new)
        raise
    return batch


def _prepare(folder: Path) -> None:
    """`*.parquet` is ignored from the start, so that DVC does not edit .gitignore for every batch."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*.parquet\n")


def _undo(root: Path, paths: list[Path]) -> None:
    with suppress(RatchetError):  # the first error is the one to tell
        repository.git(root, "rm", "--cached", "--quiet", "--force", "--ignore-unmatch", "--", *map(str, paths))
    for path in paths:
        path.unlink(missing_ok=True)


def _message(model: str, batch: str, taken: _Taken) -> str:
    classes = len(+taken.intake.classes)
    of = f" of {classes} classes" if classes else ""
    return f"Add {batch} to {model}: {len(taken.index)} examples{of} from {taken.source.name}"


def _publish(root: Path, folder: Path, batch: str) -> bool:
    try:
        return repository.publish(root, [(folder / f"{batch}.parquet.dvc").relative_to(root)])
    except PublishError as error:
        raise PublishError(f"{batch} is added and committed. {error}") from None


def _near_duplicates(params: Model, taken: _Taken) -> int:
    """Added examples that look like another one: for kinds that have a perceptual hash."""
    bits = getattr(params.data, "near_duplicate_bits", None)
    if bits is None or not len(taken.index):
        return 0
    new, old = hashes(taken.index["phash"]), hashes(taken.existing["phash"])
    return int(((find_near_duplicates(new, old, bits) >= 0) | has_earlier_near_duplicate(new, bits)).sum())


def _counts(index: pa.Table, column: str) -> dict[str, int]:
    return dict(sorted(Counter(index[column].to_pylist()).items())) if len(index) else {}


def _new_labels(taken: _Taken) -> tuple[str, ...]:
    before = _classes_before(taken)
    return tuple(label for label in sorted(+taken.intake.classes) if before and label not in before)


def _classes_before(taken: _Taken) -> Counter[str]:
    """Of the batches that are there already."""
    if taken.intake.truth == "target" and "classes" in taken.existing.column_names:
        total: Counter[str] = Counter()
        for text in taken.existing["classes"].to_pylist():
            total.update(read_counts(text))
        return total
    return Counter(_counts(taken.existing, "label")) if taken.intake.truth == "class" else Counter()


def _notes(taken: _Taken) -> list[str]:
    intake, notes = taken.intake, []
    if intake.kept_elsewhere:
        notes.append(f"{intake.kept_elsewhere} duplicates stay in the split they are in; an example never moves")
    if intake.overridden:
        notes.append(
            f"--split {intake.split} was put over the split that the source gives {intake.overridden} examples"
        )
    if taken.dropped_columns:
        notes.append(f"Columns that Ratchet fills itself were not taken over: {', '.join(taken.dropped_columns)}")
    return notes + _label_notes(taken)


def _label_notes(taken: _Taken) -> list[str]:
    labels, before = +taken.intake.classes, _classes_before(taken)
    notes = [f"Label '{label}' was not seen before; {labels[label]} of it were added" for label in _new_labels(taken)]
    spelt: dict[str, set[str]] = {}
    for label in {*labels, *before}:
        spelt.setdefault(label.casefold(), set()).add(label)
    for variants in spelt.values():
        if len(variants) > 1 and variants & set(labels):
            notes.append(f"Labels that differ in case only are different classes: {', '.join(sorted(variants))}")
    everywhere = before + labels
    lonely = [label for label in sorted(labels) if everywhere[label] == 1]
    if lonely:
        notes.append(f"Only one example so far, too few to learn and test: {', '.join(lonely)}")
    if taken.intake.truth == "class" and len(labels) and len(everywhere) == 1:
        notes.append(f"One class only so far ('{next(iter(labels))}'); training needs at least two")
    return notes
