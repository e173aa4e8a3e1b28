"""Retrain one model: from a commit's data to a verdict and, when the candidate is really better, to production.

Started by `ratchet retrain MODEL`, by a schedule (flows/schedule.py), or from Prefect's pages.
"""

import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import show
from models.common.errors import DataBlockedError, LostRaceError, PublishError, RatchetError, RegistryError
from tasks import judge as judging
from tasks import package as packaging
from tasks import promote as promotion
from tasks import run_outcome
from tasks.gating.verdict import Verdict
from tasks.project import registry, stages
from tasks.project.fingerprint import Inputs, inputs, judged
from tasks.project.lineage import lineage
from tasks.project.registry import Champion
from tasks.project.workspace import workspace
from tasks.promote import Candidate
from tasks.run_outcome import Outcome

HOUR = 3600.0  # s


def run_name() -> str:
    """`digits@1a2b3c4d5e6f`: the model and its data version."""
    wanted = flow_run.parameters
    try:
        found = _inputs_of_run(flow_run.id, wanted["root"], wanted["model"], wanted["revision"])
    except RatchetError:
        return str(wanted["model"])  # the run itself will say what is wrong
    return f"{found.model}@{found.data_version}"


@lru_cache
def _inputs_of_run(_run: str, root: str, model: str, revision: str) -> Inputs:
    """A revision may be a branch that moves: a run resolves it once, so its name and its work are of one commit."""
    return inputs(Path(root).resolve(), model, revision)


@flow(name="retrain", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def retrain(model: str, revision: str = "HEAD", force: bool = False, root: str = ".") -> State[Outcome]:
    """Validates, trains, evaluates, judges, reports and, if the verdict is PROMOTE, packages and promotes."""
    started = time.monotonic()
    project = Path(root).resolve()
    try:
        made_from = _inputs_of_run(flow_run.id, root, model, revision)
        if not force and (earlier := find_judged(project, made_from)):
            return _ended(run_outcome.unchanged(project, made_from, earlier), started)
        with workspace(project, model, made_from.commit) as tree:
            return _ended(_candidate(tree, made_from), started)
    except RatchetError as error:
        state = "BLOCKED" if isinstance(error, DataBlockedError) else "ERROR"
        get_run_logger().error("%s", error)
        return Failed(name=state, message=str(error), data=error)


def _candidate(tree: Path, made_from: Inputs) -> Outcome:
    model = made_from.model
    fetch_champion(tree, model)  # also finds out, before hours of training, whether the registry answers
    name = promotion.candidate_name(tree, made_from)  # counts earlier ones, also those that were just fetched
    try:
        validate(tree, model)
        train(tree, model)
        evaluate(tree, model)
        champion = fetch_champion(tree, model)  # again: it may have changed while this one was trained
        verdict = judge(tree, model, champion)
        report(tree, made_from, name, verdict, champion)
        if verdict.promotes:
            package(tree, model)
        candidate = save(tree, made_from, verdict, champion)
        new = promote(tree, candidate, champion) if verdict.promotes else settle(tree, candidate)
    finally:
        folder = run_outcome.hand_over(tree, model, name)
        show.links(model, folder)
    show.decision(model, verdict)
    show.metrics(model, run_outcome.measured(folder), champion.version if champion else None)
    return run_outcome.outcome(made_from, candidate, verdict, folder, champion, new or champion)


def _worth_another_try(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A remote that could not be reached may be there in a moment; a lost race or a wrong answer stays one."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, (RegistryError, PublishError)) and not isinstance(error, LostRaceError)


@task(
    name="look for an earlier verdict",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=HOUR,
    retry_condition_fn=_worth_another_try,
)
def find_judged(root: Path, made_from: Inputs) -> str | None:
    """The candidate that was judged from the same inputs, here or by anyone who shares the project."""
    return judged(root, made_from.model, made_from.fingerprint)


@task(
    name="fetch champion",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=HOUR,
    retry_condition_fn=_worth_another_try,
)
def fetch_champion(tree: Path, model: str) -> Champion | None:
    """The champion and its files, in artifacts/<model>/champion; None where there is none yet."""
    return registry.fetch_champion(tree, model, _champion_folder(tree, model))


@task(cache_policy=NO_CACHE, timeout_seconds=HOUR)
def validate(tree: Path, model: str) -> bool:
    """Great Expectations on the manifest of all batches."""
    return stages.reproduce(tree, "validate", model, show.line)


@task(cache_policy=NO_CACHE, timeout_seconds=48 * HOUR)
def train(tree: Path, model: str) -> bool:
    """The learner, in a process of its own; ends with the exported program."""
    with show.Progress(model) as progress:
        return stages.reproduce(tree, "train", model, progress.line)


@task(cache_policy=NO_CACHE, timeout_seconds=4 * HOUR)
def evaluate(tree: Path, model: str) -> bool:
    """The program over the test examples."""
    return stages.reproduce(tree, "evaluate", model, show.line)


@task(cache_policy=NO_CACHE, timeout_seconds=2 * HOUR)
def judge(tree: Path, model: str, champion: Champion | None) -> Verdict:
    """Both models on the same examples, and the gate's answer."""
    folder = _champion_folder(tree, model) if champion else None
    verdict = judging.judge(tree, model, folder, champion.version if champion else None)
    for reason in verdict.reasons:
        get_run_logger().info("%s: %s", verdict.outcome, reason)
    if verdict.outcome == "ERROR":
        raise RatchetError(f"{model} could not be judged: {'; '.join(verdict.reasons)}")
    return verdict


@task(cache_policy=NO_CACHE, timeout_seconds=HOUR)
def report(tree: Path, made_from: Inputs, name: str, verdict: Verdict, champion: Champion | None) -> Path:
    """One self-contained HTML file."""
    from tasks.report import write_report

    folder = _champion_folder(tree, made_from.model) if champion else None
    return write_report(tree, made_from.model, verdict, folder, lineage(tree, made_from, name, champion))


@task(cache_policy=NO_CACHE, retries=1, timeout_seconds=HOUR)
def package(tree: Path, model: str) -> Path:
    """The Bento, proven in a process of its own. A second try: the machine may have been too busy to start it."""
    made = packaging.package(tree, model, registry.next_version(tree, model))
    get_run_logger().info(
        "%s: %.1f MB, %d requests answered as they must", made.bento.name, made.size_mb, made.requests
    )
    return made.bento


@task(cache_policy=NO_CACHE, timeout_seconds=HOUR)
def save(tree: Path, made_from: Inputs, verdict: Verdict, champion: Champion | None) -> Candidate:
    """The candidate as a DVC experiment, whatever the verdict."""
    return promotion.save(tree, made_from, verdict, champion)


@task(
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=4 * HOUR,
    retry_condition_fn=_worth_another_try,
)
def promote(tree: Path, candidate: Candidate, champion: Champion | None) -> Champion:
    """Bytes, then commits, then tags: the new champion."""
    promotion.publish_candidate(tree, candidate)
    return promotion.promote(tree, candidate, champion)


@task(
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=4 * HOUR,
    retry_condition_fn=_worth_another_try,
)
def settle(tree: Path, candidate: Candidate) -> None:
    """Publishes a candidate that stays one, and notes that its inputs were judged."""
    promotion.publish_candidate(tree, candidate)
    promotion.settle(tree, candidate)


def _ended(outcome: Outcome, started: float) -> State[Outcome]:
    finished = replace(outcome, seconds=time.monotonic() - started)
    return Completed(name=outcome.state, message="; ".join(outcome.reasons[:1]), data=finished)


def _champion_folder(tree: Path, model: str) -> Path:
    return tree / "artifacts" / model / "champion"
