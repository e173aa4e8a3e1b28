"""The state of a project: every model and its version in production, every candidate and how it was judged."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.common.errors import RatchetError, RegistryError, UserError
from tasks.gating.verdict import Verdict
from tasks.project.approvals import APPROVED, approvals, decisions, is_judgement, waiting
from tasks.project.fingerprint import candidate_of, find_local_judgement, models_at, read_inputs
from tasks.project.new_data import last_judged, new_data
from tasks.project.paths import main_checkout
from tasks.project.registry import champion, synchronise, versions
from tasks.project.repository import git
from tasks.project.trace import FORCED, Trace, forced_versions, productions
from tasks.serve import served


@dataclass(frozen=True)
class ModelStatus:
    """One model. `waiting`: what the next run would find, as a short phrase."""

    model: str
    kind: str
    version: str | None  # in production
    since: int | None  # Unix time, s
    metric: str | None
    value: float | None  # of the champion, when it was judged
    batches: int
    rows: int
    waiting: str
    new_batches: int = 0  # that came or went since the last judgement
    last_verdict: str | None = None  # of the newest candidate
    served: tuple[str, ...] = ()  # "v1.2.0 at 127.0.0.1:3000", on this machine
    problem: str | None = None  # why the champion is unknown
    awaiting: dict[str, Any] | None = None  # the candidate that awaits approval: its name, version to be, since

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class JudgedCandidate:
    """One candidate and its verdict. Bounds are one-sided, at the policy's confidence."""

    candidate: str
    commit: str
    when: int  # Unix time, s
    data_version: str
    verdict: str
    version: str | None  # if it was put in production
    decision: str | None  # a person's: approved, declined, forced; or: awaiting approval
    metric: str
    value: float | None
    champion: float | None  # what it was compared with, on the same test examples
    gain: float | None
    lower: float | None
    upper: float | None
    reason: str
    training: str | None  # what it looks like (docs/gate.md); None of a verdict of an older Ratchet
    report: str | None  # in this checkout; None where it is gone (`ratchet gc`), or was made in another clone

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def statuses(root: Path) -> list[ModelStatus]:
    """Every model in params.yaml at HEAD."""
    sections = models_at(root, git(root, "rev-parse", "HEAD"))
    return [_status(root, name, str(section.get("kind"))) for name, section in sections.items()]


def history(root: Path, model: str) -> list[JudgedCandidate]:
    """Every candidate of a model, newest first. UserError for an unknown model."""
    known = models_at(root, git(root, "rev-parse", "HEAD"))
    if model not in known:
        raise UserError(f"Unknown model '{model}'. Models in params.yaml: {', '.join(known) or 'none yet'}")
    synchronise(root, model)
    forced = forced_versions(root, model)
    promoted = versions(root, model) | forced
    decided = {commit: entry.action for commit, entry in decisions(root, model).items()} | dict.fromkeys(forced, FORCED)
    ref_format = (
        "%(refname:lstrip=3)%09%(objectname)%09%(committerdate:unix)%09%(contents:trailers:key=Data-Version,valueonly)"
    )
    listing = git(root, "for-each-ref", f"--format={ref_format}", f"refs/ratchet/{model}/")
    lines = [f"{line}\t" for line in listing.splitlines() if "\t" in line]  # the last one has lost its empty end
    rows = [line.split("\t")[:4] for line in lines if is_judgement(line.partition("\t")[0])]
    candidates = [
        _judged_candidate(
            root,
            model,
            ref,
            commit,
            int(when),
            data.strip(),
            promoted.get(commit),
            decided.get(commit),
        )
        for ref, commit, when, data in rows
    ]
    return sorted(candidates, key=lambda row: row.when, reverse=True)


def actions(root: Path, model: str) -> list[Trace]:
    """What was put in production or asked for, by whom, when and why, newest first; as this clone knows it."""
    log = [entry for entry in approvals(root, model) if entry.action != APPROVED]  # that one is a promotion's, too
    return sorted([*log, *productions(root, model)], key=lambda trace: trace.when)[::-1]


def verdict_of(root: Path, commit: str, model: str) -> Verdict | None:
    """The verdict saved with a candidate; None for a commit that has none (put in production by hand)."""
    try:
        return Verdict.from_json(json.loads(git(root, "show", f"{commit}:artifacts/{model}/verdict.json")))
    except (RatchetError, ValueError, KeyError, TypeError):
        return None


def _status(root: Path, model: str, kind: str) -> ModelStatus:
    folder = root / "data" / model
    problem, current = None, None
    try:
        current = champion(root, model)
    except RegistryError as error:
        problem = str(error)
    verdict = verdict_of(root, current.commit, model) if current else None
    waiting, new_batches = _next_run(root, model)
    return ModelStatus(
        model=model,
        kind=kind,
        version=current.version if current else None,
        since=current.since if current else None,
        metric=verdict.metric if verdict else None,
        value=verdict.primary.candidate if verdict and verdict.primary else None,
        batches=len(list(folder.glob("*.parquet.dvc"))),
        rows=sum(_count_rows(path) for path in folder.glob("*.index")),
        waiting=waiting,
        new_batches=new_batches,
        last_verdict=_last_verdict(root, model),
        served=served(root, model),
        problem=problem,
        awaiting=_awaiting(root, model),
    )


def _awaiting(root: Path, model: str) -> dict[str, Any] | None:
    found = waiting(root, model)
    if found is None or found.is_outdated:
        return None
    return {"candidate": found.candidate, "version": found.version, "since": found.since}


def _count_rows(index: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(index).num_rows)


def _next_run(root: Path, model: str) -> tuple[str, int]:
    """What the next run would find, and how many batches are new to it."""
    try:
        inputs = read_inputs(root, model)
    except UserError:
        return "no data yet", 0
    commit = find_local_judgement(root, model, inputs.fingerprint)
    if commit is None:
        return "something new to judge", new_data(root, inputs).batches
    verdict = verdict_of(root, commit, model)
    return f"nothing new since {verdict.outcome if verdict else 'a candidate'}", 0


def _last_verdict(root: Path, model: str) -> str | None:
    candidate = last_judged(root, model)
    verdict = verdict_of(root, candidate, model) if candidate else None
    return verdict.outcome if verdict else None


def _judged_candidate(
    root: Path,
    model: str,
    ref: str,
    commit: str,
    when: int,
    data_version: str,
    version: str | None,
    decision: str | None,
) -> JudgedCandidate:
    verdict = verdict_of(root, commit, model)
    primary = verdict.primary if verdict else None
    name = candidate_of(model, ref)
    report = main_checkout(root) / "artifacts" / model / "runs" / name / "report.html"
    return JudgedCandidate(
        candidate=name,
        commit=commit,
        when=when,
        data_version=data_version,
        verdict=verdict.outcome if verdict else "unknown",
        version=version,
        decision=decision,
        metric=verdict.metric if verdict else "",
        value=primary.candidate if primary else None,
        champion=primary.champion if primary else None,
        gain=primary.gain if primary else None,
        lower=primary.lower if primary else None,
        upper=primary.upper if primary else None,
        reason=verdict.reasons[0] if verdict and verdict.reasons else "",
        training=verdict.diagnosis.looks if verdict and verdict.diagnosis else None,
        report=str(report) if report.exists() else None,
    )
