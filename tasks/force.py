"""Puts a candidate in production against the gate's advice: a person answers for it, by name and with a reason.

A candidate that was held or rejected has no Bento. It is packaged and smoke-tested now, in a worktree of the
candidate, and attached in a commit on top of it, which is what the tags then point to.
"""

from dataclasses import dataclass
from pathlib import Path

from models.common.errors import PublishError, RatchetError, UserError
from tasks.gating.verdict import Verdict
from tasks.overview import verdict_of
from tasks.package import package
from tasks.project.approvals import waiting
from tasks.project.fingerprint import judged_candidates
from tasks.project.params import load_model
from tasks.project.registry import Champion, champion, fetch, next_version, register_and_assign, versions
from tasks.project.repository import dvc, dvc_remote, is_shared
from tasks.project.trace import FORCED, forced_versions, one_line, trailers
from tasks.project.workspace import workspace
from tasks.promote import attach_bento

PARTS = ("program", "evaluation")  # what a Bento is made of and tested with


@dataclass(frozen=True)
class ForcedPromotion:
    """What was put in production, against which advice."""

    candidate: str
    verdict: Verdict
    champion: Champion
    previous: str | None  # version in production before


def find_candidate(root: Path, model: str, name: str) -> tuple[str, str]:
    """(name, commit) of a candidate, by its name in `ratchet history` or the beginning of its commit."""
    known = judged_candidates(root, model)
    found = [each for each, commit in known.items() if name == each or (len(name) >= 7 and commit.startswith(name))]
    if not found:
        raise UserError(f"{model} has no candidate '{name}'. Candidates: {', '.join(known) or 'none yet'}")
    return found[0], known[found[0]]


def force_promotion(root: Path, model: str, name: str, why: str | None, force: bool) -> ForcedPromotion:
    """Packages a candidate and puts it in production. UserError where it is there already, or without `force`, `why`.

    UserError also while the model is being retrained, LostRaceError where someone else promotes meanwhile.
    """
    load_model(root, model)  # an unknown one is refused by name
    current = champion(root, model)
    candidate, commit = find_candidate(root, model, name)
    verdict = _check_may_be_forced(root, model, candidate, commit, why, force)
    said = trailers(root, FORCED, why, Candidate=candidate, Judged_As=f"{verdict.outcome} {commit}")
    with workspace(root, model, commit) as tree:
        _fetch(tree, model, commit)
        package(tree, model, next_version(tree, model))
        with_bento = attach_bento(tree, model, f"{candidate} with its Bento, {FORCED}{said}")
        _publish_bento(tree, model, candidate)
    promoted = register_and_assign(root, model, with_bento, current, trailers=said)
    return ForcedPromotion(candidate, verdict, promoted, current.version if current else None)


def _check_may_be_forced(root: Path, model: str, candidate: str, commit: str, why: str | None, force: bool) -> Verdict:
    if version := versions(root, model).get(commit) or forced_versions(root, model).get(commit):
        raise UserError(
            f"{candidate} is {version} already. Put it in production: ratchet rollback {model} --to {version}"
        )
    verdict = verdict_of(root, commit, model)
    if verdict is None:
        raise UserError(f"{candidate} (commit {commit[:10]}) holds no verdict, so it is no candidate of this project")
    waits = waiting(root, model)
    if waits and waits.commit == commit and not waits.is_outdated:
        raise UserError(f"{candidate} awaits approval. Approve it: ratchet approve {model} {candidate}")
    if not force:
        reason = verdict.reasons[0] if verdict.reasons else "no reason given"
        raise UserError(
            f"{candidate} was judged {verdict.outcome}: {reason}. To put it in production all the same:"
            f" ratchet promote {model} {candidate} --force --why 'TEXT'"
        )
    if not one_line(why or ""):
        raise UserError("A forced promotion needs a reason, which is kept in the tag: --why 'TEXT'")
    return verdict


def _fetch(tree: Path, model: str, commit: str) -> None:
    for part in PARTS:
        fetch(tree, commit, f"artifacts/{model}/{part}", tree / "artifacts" / model / part)
    batches = sorted(str(path.relative_to(tree)) for path in (tree / "data" / model).glob("*.dvc"))
    dvc(tree, "pull" if dvc_remote(tree) else "checkout", "--quiet", *batches)


def _publish_bento(tree: Path, model: str, candidate: str) -> None:
    """Its bytes; the commit goes with the tags, and the rest of the candidate was published when it was judged."""
    if not is_shared(tree):
        return
    try:
        dvc(tree, "push", "--quiet", f"artifacts/{model}/{model}.bento.dvc")
    except RatchetError as error:
        raise PublishError(
            f"The Bento of {candidate} could not be published, so nothing was promoted: {error}"
        ) from None
