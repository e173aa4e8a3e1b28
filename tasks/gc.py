"""Frees the disk of what nothing needs any more: `ratchet gc`, and once a day by `ratchet up`.

Stays, whatever its age: data; the champion and every version that a rollback can reach; whatever a branch, tag, stash
or worktree names, here or on the git remote; the newest candidates of each model; all that a run is just using; and
that a candidate was judged, so that it is never trained again by itself. What goes can be made again, but for the
bytes of old candidates that were not promoted.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.common.errors import RatchetError, UserError
from tasks.project.locks import lock, lock_or_refuse
from tasks.project.outputs import cache
from tasks.project.params import model_names
from tasks.project.paths import home, main_checkout
from tasks.project.registry import Champion, champion_among, tags
from tasks.project.repository import git
from tasks.project.workspace import left_over, remove_left_over
from tasks.retention import dvc_cache, folders, references, remote_bytes
from tasks.retention.candidates import SavedCandidate, beyond_the_newest, saved_candidates
from tasks.retention.garbage import Garbage, garbage, remove, remove_unless_used
from tasks.retention.policy import Retention, load_retention


@dataclass(frozen=True)
class GcRow:
    """How much of one category goes, or went."""

    category: str
    model: str  # "" where it belongs to none
    count: int
    size: int  # bytes


@dataclass(frozen=True)
class GcReport:
    """What goes, or went where `deleted`, and what was left alone and why."""

    deleted: bool
    rows: tuple[GcRow, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(row.size for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        return asdict(self) | {"size": self.size}


@dataclass(frozen=True)
class Survey:
    """What stays and what does not, at one moment whose locks are held."""

    named: set[str]  # MD5 of all that stays: of history, of working trees and of kept candidates
    batches: set[str]  # MD5 of the data batches that a run may begin with
    dropped: list[SavedCandidate]  # whose bytes go, unless something that stays has the same ones


def collect(root: Path, delete: bool = False, remote: bool = False) -> GcReport:
    """Finds what may go and, if asked to, deletes it. `remote`: in the DVC and git remotes, too.

    Runs that are going are not disturbed, and runs that begin meanwhile wait for it. UserError where params.yaml is
    wrong; what cannot be decided (the git remote does not answer) stays, with a note.
    """
    started = time.monotonic()
    policy, main = load_retention(root), main_checkout(root)
    with _undisturbed(root) as busy:
        found = _left_over_runs(root, busy, delete)
        notes = [
            f"{model} is being retrained or promoted, so its candidates are left alone"
            for model in sorted(busy)
            if "+" not in model
        ]
        survey = None
        try:
            survey = _survey(root, policy, busy)
        except RatchetError as error:
            notes.append(f"Candidates are left alone, as it is not known which are needed: {error}")
        if survey and _is_inside(cache(root), main):
            found += _candidates(root, survey, policy, busy, delete)
        elif survey:
            notes.append(f"{cache(root)} is outside of this clone, so others may use it and it is left alone")
        found += _files(root, policy, busy, survey, delete)
    if survey and remote:
        found += remote_bytes.collect(root, survey.dropped, survey.named, delete)
    return GcReport(delete, _rows(found), tuple(notes), time.monotonic() - started)


@contextmanager
def _undisturbed(root: Path) -> Iterator[frozenset[str]]:
    """Holds every model that is not being retrained, and the saving of candidates; gives the busy ones."""
    folder = home(root)
    known = {path.stem for path in (folder / "locks/retrain").glob("*.lock")} | set(model_names(root))
    busy = set()
    with lock(folder, "gc"), ExitStack() as stack:
        for model in sorted(known):
            try:
                stack.enter_context(lock_or_refuse(folder, f"retrain/{model}", model))
            except UserError:
                busy |= {model, model.partition("+")[0]}  # digits+forced: a candidate of digits is being promoted
        stack.enter_context(lock(folder, "project"))
        yield frozenset(busy)


def _survey(root: Path, policy: Retention, busy: frozenset[str]) -> Survey:
    """RatchetError where git, or the git remote, cannot tell."""
    published = references.published_refs(root)
    candidates = saved_candidates(root)
    commits = {candidate.commit for candidate in candidates}
    local = references.local_refs(root)
    beyond = [each for each in beyond_the_newest(candidates, policy.candidates) if each.model not in busy]
    kept = commits - {each.commit for each in beyond}
    roots = kept | references.roots(local, commits) | references.roots(published, commits)
    objects, named = references.history(root, roots)
    checkouts = references.named_in_checkouts(root)
    tips = {value for ref, value in local.items() if ref.startswith(("HEAD", "refs/heads/", "refs/remotes/"))}
    return Survey(
        named=named | checkouts,
        batches=references.batches_of(root, tips | kept) | checkouts,
        dropped=[each for each in beyond if each.commit not in objects],
    )


def _left_over_runs(root: Path, busy: frozenset[str], delete: bool) -> list[Garbage]:
    """Worktrees of runs that were killed."""
    models = {path.name.rpartition("@")[0] for path in (home(root) / "work").glob("*@*")} - busy
    found = [garbage("left-overs", model, path) for model in sorted(models) for path in left_over(root, model)]
    if delete:
        for model in models:
            remove_left_over(root, model)
    return found


def _candidates(root: Path, survey: Survey, policy: Retention, busy: frozenset[str], delete: bool) -> list[Garbage]:
    """Bytes of dropped candidates, and of runs that were killed before they had one, out of this clone's DVC cache."""
    folder = cache(root)
    kept = dvc_cache.with_contents(folder, survey.named)
    named = list(zip(survey.dropped, references.artifacts_of(root, survey.dropped), strict=True))
    notes = [note for note in dvc_cache.notes(folder) if note.model not in busy]
    of_candidates = kept.union(*(digests for _, digests in named))
    killed = dvc_cache.abandoned(notes, of_candidates, policy.days)
    wanted = [*((each.model, each.name, "candidates", digests) for each, digests in named)]
    wanted += [(note.model, note.path.name, "left-overs", set(note.outputs)) for note in killed]
    found = dvc_cache.unneeded(folder, wanted, kept)
    gone = {path for each in found for path in each.paths}
    stale = [note for note in notes if note in killed or dvc_cache.is_useless(folder, note, kept, gone)]
    found += dvc_cache.temporary_files(folder)
    sizes = [garbage("run cache", note.model, note.path) for note in stale]
    if delete:
        _delete_experiments(root, survey.dropped)
        remove(path for each in found for path in each.paths)
        dvc_cache.forget(stale)
    return found + sizes


def _delete_experiments(root: Path, dropped: Sequence[SavedCandidate]) -> None:
    """So that `dvc exp show` lists those that can be had. Their judgements stay: nothing is judged twice."""
    lines = [f"delete {ref} {each.commit}\n" for each in dropped for ref in each.refs]
    if lines:
        git(root, "update-ref", "--stdin", text="".join(lines))


def _files(root: Path, policy: Retention, busy: frozenset[str], survey: Survey | None, delete: bool) -> list[Garbage]:
    """What lies in `.ratchet` and `artifacts`. It can be made again, or is old."""
    folder, main = home(root), main_checkout(root)
    champions = _champions(root)
    services = {f"{champion.model}-{champion.version}" for champion in champions}
    found = folders.old_reports(main / "artifacts", policy.reports, _names(root, champions))
    if survey and folder.parent == main:  # else the folder may be another project's, too
        found += folders.decoded_of_other_batches(folder / "decoded", survey.batches)
    if not busy:
        found += folders.unread_decoded(folder / "decoded", policy.days)
        found += folders.old_checkpoints(folder / "checkpoints", policy.days)
    found += folders.old_logs(folder, policy.days)
    found += folders.left_overs(folder, main / "artifacts")
    unused = folders.unused_services(folder / "bentos", services)
    if delete:
        remove(path for each in found for path in each.paths)
        for service in unused:
            remove_unless_used(service.paths[0], folders.GRACE)
    return found + unused


def _champions(root: Path) -> list[Champion]:
    """What is in production, by this clone's tags."""
    return [found for model in model_names(root) if (found := champion_among(tags(root, model), model))]


def _names(root: Path, champions: Sequence[Champion]) -> set[str]:
    """Names of the candidates that are in production. (Their Bento may have been committed on top of them.)"""
    commits = {
        commit
        for champion in champions
        for commit in git(root, "rev-list", "--first-parent", "--max-count=2", champion.commit).split()
    }
    return {candidate.name for candidate in saved_candidates(root) if candidate.commit in commits}


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _rows(found: Sequence[Garbage]) -> tuple[GcRow, ...]:
    """By category and model."""
    groups = defaultdict(list)
    for each in {each.paths: each for each in found}.values():  # each once, though two rules name it
        groups[each.category, each.model].append(each.size)
    return tuple(GcRow(*key, len(sizes), sum(sizes)) for key, sizes in sorted(groups.items()))
