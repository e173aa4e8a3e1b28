"""Takes a batch out of a model's data again, as a new data version; earlier versions still have it."""

from dataclasses import dataclass
from pathlib import Path

from models.common.data.batches import batch_names, read_index
from models.common.errors import PublishError, UserError
from tasks.project import paths, repository
from tasks.project.locks import lock
from tasks.project.params import load_model


@dataclass(frozen=True)
class RemoveReport:
    """What was removed and what is left."""

    model: str
    batch: str
    rows: int
    batches_left: tuple[str, ...]
    committed: bool
    pushed: bool
    notes: tuple[str, ...]


def remove(root: Path, model: str, batch: str) -> RemoveReport:
    """Removes one batch, commits, publishes. UserError where there is no such batch."""
    load_model(root, model)
    folder = root / "data" / model
    home = paths.home(root)
    with lock(home, f"add/{model}"):
        names = batch_names(folder)
        if batch not in names:
            raise UserError(f"{model} has no batch '{batch}'. Its batches: {', '.join(names) or 'none'}")
        rows = len(read_index(folder, batch))
        _delete_and_commit(root, folder, batch)
    not_shared = repository.reason_not_shared(root)
    return RemoveReport(
        model=model,
        batch=batch,
        rows=rows,
        batches_left=tuple(name for name in names if name != batch),
        committed=True,
        pushed=_publish(root, batch),
        notes=(f"Its bytes stay in DVC for earlier data versions; back with: git revert {_head(root)}",)
        + ((not_shared,) if not_shared else ()),
    )


def _delete_and_commit(root: Path, folder: Path, batch: str) -> None:
    repository.current_branch(root)
    repository.check_identity(root)
    pointers = [folder / f"{batch}.parquet.dvc", folder / f"{batch}.index"]
    for path in [*pointers, folder / f"{batch}.parquet"]:
        path.unlink(missing_ok=True)
    try:
        repository.commit(root, pointers, f"Remove {batch} from {folder.name}")
    except BaseException:
        repository.git(root, "checkout", "HEAD", "--", *map(str, pointers))
        raise


def _publish(root: Path, batch: str) -> bool:
    try:
        return repository.publish(root, [])
    except PublishError as error:
        raise PublishError(f"{batch} is removed and the removal is committed. {error}") from None


def _head(root: Path) -> str:
    return repository.git(root, "rev-parse", "--short", "HEAD")
