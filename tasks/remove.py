"""Takes a batch out of a model's data again, as a new data version; earlier versions still have it."""

from dataclasses import dataclass
from pathlib import Path

from models.common.data.batches import batch_names, read_index
from models.common.errors import PublishError, UserError
from tasks.adding.staging import finish_interrupted, removal_that_can_be_taken_back, take_back_interrupted_removal
from tasks.project import paths, publishing, repository
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
    publishing.take_back_rebase(root)
    with lock(home, f"add/{model}"):
        recovered = finish_interrupted(root, folder)
        take_back_interrupted_removal(root, folder)
        names = batch_names(folder)
        if batch not in names:
            publishing.publish(root)  # a removal that was killed after its commit
            raise UserError(f"{model} has no batch '{batch}'. Its batches: {', '.join(names) or 'none'}")
        rows = len(read_index(folder, batch))
        _delete_and_commit(root, folder, batch)
    back = f"Its bytes stay in DVC for earlier data versions; back with: git revert {_head(root)}"
    not_shared = repository.reason_not_shared(root)
    return RemoveReport(
        model=model,
        batch=batch,
        rows=rows,
        batches_left=tuple(name for name in names if name != batch),
        committed=True,
        pushed=_publish(root, batch),
        notes=(*recovered, back, *([not_shared] if not_shared else [])),
    )


def _delete_and_commit(root: Path, folder: Path, batch: str) -> None:
    repository.current_branch(root)
    repository.check_identity(root)
    pointers = [folder / f"{batch}.parquet.dvc", folder / f"{batch}.index"]
    with removal_that_can_be_taken_back(root, folder, batch):
        for path in [*pointers, folder / f"{batch}.parquet"]:
            path.unlink(missing_ok=True)
        repository.commit(root, pointers, f"Remove {batch} from {folder.name}")


def _publish(root: Path, batch: str) -> bool:
    try:
        return publishing.publish(root)
    except PublishError as error:
        raise PublishError(f"{batch} is removed and the removal is committed. {error}") from None


def _head(root: Path) -> str:
    return repository.git(root, "rev-parse", "--short", "HEAD")
