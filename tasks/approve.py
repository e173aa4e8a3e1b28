"""Where `gate.approval` is manual: a candidate that is better waits, and a person approves or declines it.

Killed anywhere, all is as before or all is done: each of the three is one transaction of refs.
"""

from pathlib import Path

from models.common.errors import LostRaceError, UserError
from tasks.project.approvals import (
    APPROVED,
    DECLINED,
    WAITING,
    Waiting,
    champion_trailers,
    next_entry,
    waiting,
)
from tasks.project.params import load_model
from tasks.project.registry import Champion, champion, create_refs, next_version, register_and_assign, synchronise
from tasks.project.trace import identity, one_line, trailers
from tasks.promote import Candidate


def needs_approval(tree: Path, model: str) -> bool:
    """By the params of the commit that was retrained."""
    return load_model(tree, model).gate.approval == "manual"


def await_approval(tree: Path, candidate: Candidate, judged_against: Champion | None) -> None:
    """Records a candidate as judged, and that it waits. LostRaceError when the champion has changed meanwhile.

    Tried again after an answer was lost, it is recorded once.
    """
    model = candidate.model
    current = champion(tree, model)
    known = waiting(tree, model)
    if known and known.commit == candidate.commit:
        return
    if current != judged_against:
        raise LostRaceError(f"{model}'s champion changed while the candidate was judged.")
    version = next_version(tree, model)
    named = {"Candidate": candidate.name, "Version": version, **champion_trailers(judged_against)}
    message = f"{model} {version} awaits approval{trailers(tree, WAITING, **named)}"
    entry = next_entry(tree, model, candidate.commit, message)
    conflict = f"{model} was judged by someone else in the meantime: ratchet history {model}."
    create_refs(tree, {candidate.judgement_ref: candidate.commit, **entry}, conflict)


def approve(root: Path, model: str, name: str | None = None, why: str | None = None) -> tuple[Waiting, Champion]:
    """Puts the candidate that waits in production. UserError where none does, or none of that name.

    LostRaceError where what is in production is no longer what it was judged against: it must be judged again.
    """
    candidate = _waiting(root, model, name)
    if candidate.is_outdated or next_version(root, model) != candidate.version:
        raise LostRaceError(
            f"{candidate.candidate} was judged against {_version(candidate.judged_against)}, and that is not in"
            f" production any more. Judge it again: ratchet retrain {model}"
        )
    said = trailers(root, APPROVED, why, Candidate=candidate.candidate, Approved_By=identity(root))
    entry = next_entry(root, model, candidate.commit, f"{model} {candidate.version} is approved{said}")
    try:
        promoted = register_and_assign(root, model, candidate.commit, candidate.judged_against, entry, said)
    except LostRaceError:
        raise LostRaceError(_decided_by_someone_else(model)) from None
    return candidate, promoted


def decline(root: Path, model: str, name: str | None, why: str) -> Waiting:
    """Records that the candidate that waits is not wanted. UserError where none waits, or `why` says nothing."""
    if not one_line(why):
        raise UserError("A decline needs a reason, which is kept: --why 'TEXT'")
    candidate = _waiting(root, model, name)
    said = trailers(root, DECLINED, why, Candidate=candidate.candidate)
    entry = next_entry(root, model, candidate.commit, f"{model} {candidate.version} is declined{said}")
    create_refs(root, entry, _decided_by_someone_else(model))
    return candidate


def _waiting(root: Path, model: str, name: str | None) -> Waiting:
    load_model(root, model)  # an unknown one is refused by name
    synchronise(root, model)
    candidate = waiting(root, model)
    if candidate is None:
        raise UserError(f"No candidate of {model} awaits approval. What there is: ratchet history {model}")
    if name and name != candidate.candidate and not (len(name) >= 7 and candidate.commit.startswith(name)):
        raise UserError(
            f"'{name}' does not await approval; of {model} only {candidate.candidate} does, since it is the newest"
        )
    return candidate


def _decided_by_someone_else(model: str) -> str:
    return f"Someone else decided on {model} in the meantime: ratchet history {model}"


def _version(champion: Champion | None) -> str:
    return champion.version if champion else "nothing, as the first model"
