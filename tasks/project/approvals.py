"""Which candidate awaits a person's approval: a numbered log of annotated tags, refs/ratchet/<model>/approval-<N>.

    approval-0001   Action: awaiting approval    the candidate, its version to be, the champion it was judged against
    approval-0002   Action: awaiting approval    a newer candidate: the older one does not wait any more
    approval-0003   Action: approved             made together with the tags of its promotion
    approval-0004   Action: declined

Only the last entry counts. Entries are created, never moved, so creating the next one is the compare-and-swap: of two
people who decide at once, one has decided.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import RegistryError
from tasks.project.registry import Champion, champion_among, tags, write_tag_object
from tasks.project.trace import Trace, read_traces

WAITING, APPROVED, DECLINED = "awaiting approval", "approved", "declined"
PREFIX = "approval-"


@dataclass(frozen=True)
class Waiting:
    """A candidate that awaits approval."""

    model: str
    candidate: str  # its name: digits-1a2b3c4d
    commit: str
    since: int  # Unix time, s
    version: str  # that it gets when it is approved; its Bento says so
    judged_against: Champion | None
    is_outdated: bool  # what is in production is no longer what it was judged against


def approvals(root: Path, model: str) -> list[Trace]:
    """The log in this clone, oldest first."""
    return read_traces(root, [f"refs/ratchet/{model}/{PREFIX}*"])


def waiting(root: Path, model: str) -> Waiting | None:
    """The candidate that awaits approval, by what this clone knows; None where none does."""
    log = approvals(root, model)
    if not log or log[-1].action != WAITING:
        return None
    try:
        return _waiting(model, log[-1], champion_among(tags(root, model), model))
    except (KeyError, ValueError):
        raise RegistryError(f"{log[-1].trailers['ref']} is no entry that Ratchet made. See: git for-each-ref") from None


def decisions(root: Path, model: str) -> dict[str, Trace]:
    """The last entry on each candidate (by commit); none on one whose turn passed before anyone decided."""
    last = {entry.commit: entry for entry in approvals(root, model)}
    candidate = waiting(root, model)
    in_turn = candidate.commit if candidate and not candidate.is_outdated else None
    return {commit: entry for commit, entry in last.items() if entry.action != WAITING or commit == in_turn}


def next_entry(root: Path, model: str, commit: str, message: str) -> dict[str, str]:
    """The next entry of the log, which no ref points to yet: {ref: object}. `message` ends with its trailers."""
    number = 1 + max((_number(trace) for trace in approvals(root, model)), default=0)
    name = f"{PREFIX}{number:04d}"
    tag = write_tag_object(root, f"{model}/{name}", commit, int(time.time()), message)
    return {f"refs/ratchet/{model}/{name}": tag}


def champion_trailers(champion: Champion | None) -> dict[str, str]:
    """What `waiting` reads a champion from."""
    return {"Judged_Against": f"{champion.version} {champion.commit} {champion.number}" if champion else "none"}


def is_judgement(ref: str) -> bool:
    """Whether a ref under refs/ratchet/<model>/ is a judgement, and not an entry of this log."""
    return not ref.rpartition("/")[2].startswith(PREFIX)


def _waiting(model: str, entry: Trace, current: Champion | None) -> Waiting:
    judged_against = _champion(model, entry.trailers)
    return Waiting(
        model=model,
        candidate=entry.trailers["Candidate"],
        commit=entry.commit,
        since=entry.when,
        version=entry.trailers["Version"],
        judged_against=judged_against,
        is_outdated=_place(current) != _place(judged_against),
    )


def _champion(model: str, trailers: Mapping[str, str]) -> Champion | None:
    if trailers["Judged-Against"] == "none":
        return None
    version, commit, number = trailers["Judged-Against"].split()
    return Champion(model, version, commit, int(number))


def _place(champion: Champion | None) -> tuple[str, int] | None:
    return (champion.commit, champion.number) if champion else None


def _number(trace: Trace) -> int:
    return int(trace.trailers["ref"].rpartition(PREFIX)[2])
