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
from tasks.adding.inspection import inspect_examples
from tasks.adding.intake import Intake, KnownExamples
from tasks.adding.quarantine import bad_share, write_quarantine
from tasks.adding.staging import finish_interrupted, take_back_interrupted_removal
from tasks.project import paths, publishing, repository
from tasks.project.disk import report_full_disk
from tasks.project.locks import lock, temporary_folder
from tasks.project.params import Model, load_model

# (examples read so far, examples in the source or 0 while that is unknown)
ProgressCallback = Callable[[int, int], None]
# columns that are read of the existing batches
EXISTING_COLUMNS = (
    "id",
    "label",
    "target_id",
    "split",
    "group",
    "phash",
    "classes",
)
# columns that no source can give
RESERVED_COLUMNS = frozenset({"id", "source", "bytes", "target", "target_id", "batch", "row"})


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
    notes: tuple[str, ...]  # one line each, for the user


@dataclass(frozen=True)
class _ReadResult:
    source: Source
    intake: Intake
    index: pa.Table  # the rows that came in, without bytes
    existing: pa.Table  # rows of the earlier batches
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
    publishing.take_back_rebase(root)
    repository.current_branch(root)
    repository.check_identity(root)
    home, folder = paths.home(root), root / "data" / model
    with lock(home, f"add/{model}"), report_full_disk(f"adding {source}; nothing was added"):
        recovered = [*finish_interrupted(root, folder), *take_back_interrupted_removal(root, folder)]
        with temporary_folder(home / "adding") as work:
            result = _read_source(params, folder, Source(source), split, work, progress or _ignore_progress)
            quarantine = _quarantine(home, params, result)
            batch = _store_batch(root, folder, result, work) if len(result.index) else None
    pushed = _publish(root, batch)  # also without a new batch: an add before may have been killed before this
    not_shared = repository.reason_not_shared(root) if batch else None
    return AddReport(
        model=model,
        source=source,
        batch=batch,
        rows=result.rows,
        added=len(result.index),
        duplicates=result.intake.duplicates,
        near_duplicates=_count_near_duplicates(params, result),
        classes={label: count for label, count in sorted(result.intake.classes.items()) if count},
        splits={name: _counts(result.index, "split").get(name, 0) for name in SPLITS},
        quarantined=result.quarantined,
        quarantine_report=quarantine,
        new_labels=_new_labels(result),
        committed=batch is not None,
        pushed=pushed,
        seconds=time.monotonic() - started,
        notes=(*recovered, *result.source.notes, *_notes(result), *([not_shared] if not_shared else [])),
    )


def _ignore_progress(done: int, total: int) -> None:
    pass


def _checked_split(split: str | None) -> str | None:
    if split is None:
        return None
    if split not in SPLIT_NAMES:
        raise UserError(f"split '{split}' is none of {', '.join(SPLITS)}")
    return SPLIT_NAMES[split]


def _read_source(
    params: Model, folder: Path, source: Source, split: str | None, work: Path, progress: ProgressCallback
) -> _ReadResult:
    existing = _existing(folder)
    truth = params.kind.TRUTH
    intake = Intake(params.data, truth, split, KnownExamples(existing), _group_splits(existing))
    examples = params.kind.examples(source, params.data)
    inspected = inspect_examples(examples, lambda example: params.kind.inspect(example, params.data), intake.known)
    writer: BatchFile | None = None
    reserved = RESERVED_COLUMNS | set(params.kind.COLUMNS)
    try:
        for example, id, columns in inspected:
            if writer is None:  # only now has the kind read the source's columns
                extra = set(source.columns or example.extra or ()) - reserved
                writer = BatchFile(work / "batch.parquet", params.kind.COLUMNS, extra, source.name, truth == "target")
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
    return _ReadResult(source, intake, index, existing, tuple(sorted(reserved & set(source.columns))))


def _existing(folder: Path) -> pa.Table:
    """Every existing row; `truth` is its label or the id of its target."""
    tables = [read_columns(folder, name, EXISTING_COLUMNS) for name in batch_names(folder)]
    if not tables:
        return empty(pa.schema([(name, pa.string()) for name in (*EXISTING_COLUMNS, "batch", "truth")]))
    rows = pa.concat_tables(tables)
    return rows.append_column("truth", rows["target_id" if "target_id" in rows.column_names else "label"])


def _group_splits(existing: pa.Table) -> dict[str, str]:
    grouped = existing.filter(existing["group"].is_valid())
    return dict(zip(grouped["group"].to_pylist(), grouped["split"].to_pylist(), strict=True))


def _quarantine(home: Path, params: Model, result: _ReadResult) -> Path | None:
    """Writes the quarantine report; DataBlockedError where too much of the source is in it."""
    bad = result.quarantined
    if not bad:
        return None
    report = write_quarantine(home / "quarantine" / params.name, result.source.slug, bad)
    share = bad_share(bad, result.rows)
    if share > params.data.max_bad or (not len(result.index) and not result.intake.duplicates):
        file, reason = bad[0]
        raise DataBlockedError(
            f"{result.source.name} is refused: {len(bad)} of {result.rows} rows are bad ({share:.1%}, allowed:"
            f" {params.data.max_bad:.1%}), the first {file}: {reason}. All of them: {report}. Nothing was added;"
            f" mend them or raise models.{params.name}.data.max_bad"
        )
    return report


def _store_batch(root: Path, folder: Path, result: _ReadResult, work: Path) -> str:
    """Moves the batch into the data folder, into DVC and into a commit; on any failure none of it stays."""
    batch = f"{result.source.slug}-{content_hash(result.index)}"
    index, data = folder / f"{batch}.index", folder / f"{batch}.parquet"
    tracked = [folder / f"{batch}.parquet.dvc", index, folder / ".gitignore"]
    new_files = [path for path in [*tracked, data] if not path.exists()]
    try:
        _prepare_folder(folder)
        write_index(result.index, work / "batch.index")
        shutil.move(work / "batch.index", index)
        shutil.move(work / "batch.parquet", data)
        repository.dvc(root, "add", "--quiet", str(data.relative_to(root)))
        repository.commit(root, tracked, _message(folder.name, batch, result))
    except BaseException:  # also Ctrl-C
        _undo(root, new_files)
        raise
    return batch


def _prepare_folder(folder: Path) -> None:
    """`*.parquet` is ignored from the start, so that DVC does not edit .gitignore for every batch."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*.parquet\n")


def _undo(root: Path, paths: list[Path]) -> None:
    with suppress(RatchetError):  # the first error is the one to report
        repository.git(root, "rm", "--cached", "--quiet", "--force", "--ignore-unmatch", "--", *map(str, paths))
    for path in paths:
        path.unlink(missing_ok=True)


def _message(model: str, batch: str, result: _ReadResult) -> str:
    classes = len(+result.intake.classes)
    of = f" of {classes} classes" if classes else ""
    return f"Add {batch} to {model}: {len(result.index)} examples{of} from {result.source.name}"


def _publish(root: Path, batch: str | None) -> bool:
    try:
        return publishing.publish(root) and batch is not None
    except PublishError as error:
        done = f"{batch} is added and committed" if batch else "Nothing new was in it"
        raise PublishError(f"{done}. {error}") from None


def _count_near_duplicates(params: Model, result: _ReadResult) -> int:
    """Added examples that look like another one: for kinds that have a perceptual hash."""
    bits = getattr(params.data, "near_duplicate_bits", None)
    if bits is None or not len(result.index):
        return 0
    new, old = hashes(result.index["phash"]), hashes(result.existing["phash"])
    return int(((find_near_duplicates(new, old, bits) >= 0) | has_earlier_near_duplicate(new, bits)).sum())


def _counts(index: pa.Table, column: str) -> dict[str, int]:
    return dict(sorted(Counter(index[column].to_pylist()).items())) if len(index) else {}


def _new_labels(result: _ReadResult) -> tuple[str, ...]:
    existing = _existing_classes(result)
    return tuple(label for label in sorted(+result.intake.classes) if existing and label not in existing)


def _existing_classes(result: _ReadResult) -> Counter[str]:
    """Classes of the existing batches."""
    if result.intake.truth == "target" and "classes" in result.existing.column_names:
        total: Counter[str] = Counter()
        for text in result.existing["classes"].to_pylist():
            total.update(read_counts(text))
        return total
    return Counter(_counts(result.existing, "label")) if result.intake.truth == "class" else Counter()


def _notes(result: _ReadResult) -> list[str]:
    intake, notes = result.intake, []
    if intake.duplicates_in_other_split:
        notes.append(
            f"{intake.duplicates_in_other_split} duplicates stay in the split they are in; an example never moves"
        )
    if intake.overridden:
        notes.append(
            f"--split {intake.split} was put over the split that the source gives {intake.overridden} examples"
        )
    if result.dropped_columns:
        notes.append(f"Columns that Ratchet fills itself were ignored: {', '.join(result.dropped_columns)}")
    return notes + _label_notes(result)


def _label_notes(result: _ReadResult) -> list[str]:
    labels, existing = +result.intake.classes, _existing_classes(result)
    notes = [f"Label '{label}' was not seen before; {labels[label]} of it were added" for label in _new_labels(result)]
    by_casefold: dict[str, set[str]] = {}
    for label in {*labels, *existing}:
        by_casefold.setdefault(label.casefold(), set()).add(label)
    for variants in by_casefold.values():
        if len(variants) > 1 and variants & set(labels):
            notes.append(f"Labels that differ in case only are different classes: {', '.join(sorted(variants))}")
    total = existing + labels
    single = [label for label in sorted(labels) if total[label] == 1]
    if single:
        notes.append(f"Only one example so far, too few to learn and test: {', '.join(single)}")
    if result.intake.truth == "class" and len(labels) and len(total) == 1:
        notes.append(f"One class only so far ('{next(iter(labels))}'); training needs at least two")
    return notes
