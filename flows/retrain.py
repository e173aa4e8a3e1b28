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
from tasks.project import fingerprint, registry, stages
from tasks.project.fingerprint import Inputs, read_inputs
from tasks.project.lineage import lineage
from tasks.project.registry import Champion
from tasks.project.workspace import workspace
from tasks.promote import Candidate
from tasks.run_outcome import RunOutcome

HOUR = 3600.0  # s


def run_name() -> str:
    """`digits@1a2b3c4d5e6f`: the model and its data version."""
    parameters = flow_run.parameters
    try:
        inputs = _inputs_of_run(flow_run.id, parameters["root"], parameters["model"], parameters["revision"])
    except RatchetError:
        return str(parameters["model"])  # the run itself will raise it
    return f"{inputs.model}@{inputs.data_version}"


@lru_cache
def _inputs_of_run(_run: str, root: str, model: str, revision: str) -> Inputs:
    """A revision may be a branch that moves: a run resolves it once, so its name and its work are of one commit."""
    return read_inputs(Path(root).resolve(), model, revision)


@flow(name="retrain", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def retrain(model: str, revision: str = "HEAD", force: bool = False, root: str = ".") -> State[RunOutcome]:
    """Validates, trains, evaluates, judges, reports and, if the verdict is PROMOTE, packages and promotes."""
    started = time.monotonic()
    project = Path(root).resolve()
    try:
        inputs = _inputs_of_run(flow_run.id, root, model, revision)
        if not force and (earlier := find_judgement(project, inputs)):
            return _completed(run_outcome.unchanged_outcome(project, inputs, earlier), started)
        with workspace(project, model, inputs.commit) as tree:
            return _completed(_train_and_judge(tree, inputs), started)
    except RatchetError as error:
        state = "BLOCKED" if isinstance(error, DataBlockedError) else "ERROR"
        get_run_logger().error("%s", error)
        return Failed(name=state, message=str(error), data=error)


def _train_and_judge(tree: Path, inputs: Inputs) -> RunOutcome:
    model = inputs.model
    fetch_champion(tree, model)  # also fails before hours of training where the registry does not answer
    name = promotion.candidate_name(tree, inputs)  # counts earlier ones, also those that were just fetched
    try:
        validate(tree, model)
        train(tree, model)
        evaluate(tree, model)
        champion = fetch_champion(tree, model)  # again: it may have changed while this one was trained
        verdict = judge(tree, model, champion)
        report(tree, inputs, name, verdict, champion)
        if verdict.promotes:
            package(tree, model)
        candidate = save(tree, inputs, verdict, champion)
        promoted = promote(tree, candidate, champion) if verdict.promotes else record_judgement(tree, candidate)
    finally:
        folder = run_outcome.copy_results(tree, model, name)
        show.links(model, folder)
    show.decision(model, verdict)
    show.metrics(model, run_outcome.measured_metrics(folder), champion.version if champion else None)
    return run_outcome.judged_outcome(inputs, candidate, verdict, folder, champion, promoted or champion)


def _is_transient(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A remote that could not be reached may answer on a second try; a lost race or a wrong answer would not change."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, (RegistryError, PublishError)) and not isinstance(error, LostRaceError)


@task(
    name="find judgement",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=HOUR,
    retry_condition_fn=_is_transient,
)
def find_judgement(root: Path, inputs: Inputs) -> str | None:
    """The candidate that was judged from the same inputs, here or by anyone who shares the project."""
    return fingerprint.find_judgement(root, inputs.model, inputs.fingerprint)


@task(
    name="fetch champion",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=HOUR,
    retry_condition_fn=_is_transient,
)
def fetch_champion(tree: Path, model: str) -> Champion | None:
    """The champion and its files, in artifacts/<model>/champion; None where there is none yet."""
    return registry.fetch_champion(tree, model, _champion_folder(tree, model))


@task(cache_policy=NO_CACHE, timeout_seconds=HOUR)
def validate(tree: Path, model: str) -> bool:
    """Great Expectations on the manifest of all batches."""
    return stages.reproduce(tree, "validate", model, show.log_line)


@task(cache_policy=NO_CACHE, timeout_seconds=48 * HOUR)
def train(tree: Path, model: str) -> bool:
    """The learner, in a process of its own; ends with the exported program."""
    with show.TrainingProgress(model) as progress:
        return stages.reproduce(tree, "train", model, progress.log_line)


@task(cache_policy=NO_CACHE, timeout_seconds=4 * HOUR)
def evaluate(tree: Path, model: str) -> bool:
    """The program over the test examples."""
    return stages.reproduce(tree, "evaluate", model, show.log_line)


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
def report(tree: Path, inputs: Inputs, name: str, verdict: Verdict, champion: Champion | None) -> Path:
    """One self-contained HTML file."""
    from tasks.report import write_report

    folder = _champion_folder(tree, inputs.model) if champion else None
    return write_report(tree, inputs.model, verdict, folder, lineage(tree, inputs, name, champion))


@task(cache_policy=NO_CACHE, retries=1, timeout_seconds=HOUR)
def package(tree: Path, model: str) -> Path:
    """The Bento, smoke-tested in a process of its own. One retry: the machine may have been too busy to start it."""
    packaged = packaging.package(tree, model, registry.next_version(tree, model))
    get_run_logger().info(
        "%s: %.1f MB, %d smoke test requests passed", packaged.bento.name, packaged.size_mb, packaged.requests
    )
    return packaged.bento


@task(cache_policy=NO_CACHE, timeout_seconds=HOUR)
def save(tree: Path, inputs: Inputs, verdict: Verdict, champion: Champion | None) -> Candidate:
    """The candidate as a DVC experiment, whatever the verdict."""
    return promotion.save(tree, inputs, verdict, champion)


@task(
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    timeout_seconds=4 * HOUR,
    retry_condition_fn=_is_transient,
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
    retry_condition_fn=_is_transient,
)
def record_judgement(tree: Path, candidate: Candidate) -> None:
    """Publishes a candidate that is not promoted, and records that its inputs were judged."""
    promotion.publish_candidate(tree, candidate)
    promotion.record_judgement(tree, candidate)


def _completed(outcome: RunOutcome, started: float) -> State[RunOutcome]:
    finished = replace(outcome, seconds=time.monotonic() - started)
    return Completed(name=outcome.state, message="; ".join(outcome.reasons[:1]), data=finished)


def _champion_folder(tree: Path, model: str) -> Path:
    return tree / "artifacts" / model / "champion"
