"""What is new for a model since a candidate of it was last judged."""

import io
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import RatchetError
from tasks.project.approvals import is_judgement
from tasks.project.fingerprint import Inputs, read_inputs
from tasks.project.repository import git, read_file


@dataclass(frozen=True)
class NewData:
    """Batches that came or went since the last judgement. `recipe_changed`: code or params did, too."""

    batches: int
    examples: int
    recipe_changed: bool


def new_data(root: Path, inputs: Inputs) -> NewData:
    """What a run from these inputs would see that the last judged candidate did not."""
    now = _batches(root, inputs.commit, inputs.model)
    candidate = last_judged(root, inputs.model)
    judged = _made_from(root, candidate) if candidate else None
    before = _batches(root, judged, inputs.model) if judged else {}
    came = {name for name, pointer in now.items() if before.get(name) != pointer}
    gone = {name for name in before if name not in now}
    rows = sum(_rows(root, inputs.commit, inputs.model, name) for name in came)
    rows += sum(_rows(root, str(judged), inputs.model, name) for name in gone)
    changed = judged is None or _recipe(root, inputs.model, judged) != inputs.recipe
    return NewData(len(came | gone), rows, bool(judged) and changed)


def last_judged(root: Path, model: str) -> str | None:
    """The newest judged candidate (a commit) that this clone knows."""
    listing = ("for-each-ref", "--sort=-committerdate", "--format=%(refname) %(objectname)", f"refs/ratchet/{model}/")
    rows = [line.split() for line in git(root, *listing).splitlines()]
    return next((commit for ref, commit in rows if is_judgement(ref)), None)


def _made_from(root: Path, candidate: str) -> str:
    """The commit whose data and code the candidate is of."""
    return git(root, "log", "-1", "--format=%(trailers:key=Made-From,valueonly)", candidate) or candidate


def _recipe(root: Path, model: str, commit: str) -> str:
    try:
        return read_inputs(root, model, commit).recipe
    except RatchetError:  # it had no such model then, or no data
        return ""


def _batches(root: Path, commit: str, model: str) -> dict[str, str]:
    """Pointer (blob) of each batch by name."""
    listing = git(root, "ls-tree", "--format=%(objectname) %(path)", commit, "--", f"data/{model}/").splitlines()
    pairs = [line.split(" ", 1) for line in listing]
    return {Path(path).name.removesuffix(".parquet.dvc"): blob for blob, path in pairs if path.endswith(".parquet.dvc")}


def _rows(root: Path, commit: str, model: str, batch: str) -> int:
    import pyarrow.parquet as pq

    index = read_file(root, commit, f"data/{model}/{batch}.index")
    return int(pq.read_metadata(io.BytesIO(index)).num_rows)
