"""Every candidate that a ref of Ratchet's own names, and which of them keep their bytes."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.project.repository import git

JUDGEMENT = re.compile(r"refs/ratchet/(?P<model>[^/]+)/(?P<fingerprint>[0-9a-f]{64})(?:-(?P<attempt>\d+))?")
TRAILERS = "%(contents:trailers:key=Model,key=Fingerprint,separator=%x2C)"
SAVED = re.compile(r"Model: (?P<model>[^,]+),(?:.*,)?Fingerprint: [0-9a-f]{64}")
REF_FORMAT = f"%(refname)%09%(objectname)%09%(committerdate:unix)%09{TRAILERS}"


@dataclass(frozen=True)
class SavedCandidate:
    """A candidate's commit. `refs`: those of DVC's experiments that point to it."""

    model: str
    name: str  # digits-1a2b3c4d
    commit: str
    when: int  # Unix time, s
    refs: tuple[str, ...] = ()


def saved_candidates(root: Path) -> list[SavedCandidate]:
    """All of this clone, newest first: those that were judged, and those whose run was killed right before."""
    listing = git(root, "for-each-ref", f"--format={REF_FORMAT}", "refs/ratchet/", "refs/exps/")
    rows = [line.split("\t") for line in listing.splitlines() if line.count("\t") == 3]
    experiments = defaultdict(list)
    for ref, commit, *_ in rows:
        if ref.startswith("refs/exps/"):
            experiments[commit].append(ref)
    found = {
        commit: SavedCandidate(*named, commit, int(when or 0), tuple(experiments[commit]))
        for ref, commit, when, trailers in rows
        if (named := _name(ref, trailers))
    }
    return sorted(found.values(), key=lambda each: (each.when, each.commit), reverse=True)


def beyond_the_newest(candidates: Iterable[SavedCandidate], count: int) -> list[SavedCandidate]:
    """Of candidates, newest first, those after the first `count` of their model."""
    seen: dict[str, int] = defaultdict(int)
    dropped = []
    for candidate in candidates:
        seen[candidate.model] += 1
        if seen[candidate.model] > count:
            dropped.append(candidate)
    return dropped


def _name(ref: str, trailers: str) -> tuple[str, str] | None:
    """Model and name of a candidate; None for a ref that is a person's experiment, or no judgement."""
    if match := JUDGEMENT.fullmatch(ref):
        attempt = f"-{int(match['attempt'])}" if match["attempt"] else ""
        return match["model"], f"{match['model']}-{match['fingerprint'][:8]}{attempt}"
    if ref.startswith("refs/exps/") and (match := SAVED.fullmatch(trailers)):
        return match["model"], ref.rpartition("/")[2]
    return None
