"""The chain of one retrain, step by step: from a commit's data to a verdict and, if the candidate is really better, to
production. Whoever carries the steps out (flows/retraining/steps.py), these are the steps.
"""

import importlib
import threading
import time
from dataclasses import replace
from pathlib import Path

from flows.retraining.steps import is_transient, runner, step, timed
from models.common.errors import LostRaceError, RatchetError
from tasks import approve as approval
from tasks import package as packaging
from tasks import promote as promotion
from tasks import run_outcome
from tasks.gating.verdict import Verdict
from tasks.project import fingerprint, intact, registry
from tasks.project.disk import report_full_disk
from tasks.project.fingerprint import Inputs
from tasks.project.lineage import lineage
from tasks.project.registry import Champion
from tasks.project.workspace import workspace
from tasks.promote import Candidate
from tasks.run_outcome import RunOutcome

RACES = 3  # how often a candidate that lost a race is judged again, against the new champion
RETRY = (1.0, 5.0)  # seconds before a remote that did not answer is asked again


def retrain_model(project: Path, inputs: Inputs, force: bool = False) -> RunOutcome:
    """Validates, trains, evaluates, judges, reports and, if the verdict is PROMOTE, packages and promotes."""
    started = time.monotonic()
    with timed() as steps:
        if not force and (earlier := find_judgement(project, inputs)):
            outcome = run_outcome.unchanged_outcome(project, inputs, earlier)
        else:
            doing = f"retraining {inputs.model}; nothing in production changed"
            with report_full_disk(doing), workspace(project, inputs.model, inputs.commit) as tree:
                outcome = _train_and_judge(tree, inputs)
    return replace(outcome, seconds=time.monotonic() - started, steps=tuple(steps))


def _train_and_judge(tree: Path, inputs: Inputs) -> RunOutcome:
    model = inputs.model
    fetch_champion(tree, model)  # also fails before hours of training where the registry does not answer
    name = promotion.candidate_name(tree, inputs)  # counts earlier ones, also those that were just fetched
    threading.Thread(target=importlib.import_module, args=("tasks.judge",)).start()  # while stages run elsewhere
    try:
        validate(tree, model)
        train(tree, model)
        evaluate(tree, model)
        for _ in range(RACES):
            try:
                return _judge_and_promote(tree, inputs, name)
            except LostRaceError as error:
                runner().log(f"{error} Judging again")
                if earlier := find_judgement(tree, inputs):  # whoever won had the same inputs
                    return run_outcome.unchanged_outcome(tree, inputs, earlier)
        return _judge_and_promote(tree, inputs, name)
    finally:
        runner().show_links(model, run_outcome.copy_results(tree, model, name))


def _judge_and_promote(tree: Path, inputs: Inputs, name: str) -> RunOutcome:
    """Once against today's champion. LostRaceError when that is no longer the champion when all is done."""
    model = inputs.model
    champion = fetch_champion(tree, model)  # again: it may have changed while this one was trained
    verdict = judge(tree, model, champion)
    report(tree, inputs, name, verdict, champion)
    if verdict.promotes:
        package(tree, model)
    candidate = save(tree, inputs, verdict, champion)
    promoted = _conclude(tree, candidate, verdict, champion)
    folder = run_outcome.copy_results(tree, model, name)
    runner().show_decision(model, verdict, run_outcome.measured_metrics(folder), champion.version if champion else None)
    return run_outcome.judged_outcome(inputs, candidate, verdict, folder, champion, promoted)


def _conclude(tree: Path, candidate: Candidate, verdict: Verdict, champion: Champion | None) -> Champion | None:
    """The new champion, if there is one."""
    if not verdict.promotes:
        return record_judgement(tree, candidate)
    if approval.needs_approval(tree, candidate.model):
        return await_approval(tree, candidate, champion)
    return promote(tree, candidate, champion)


@step(hours=1, name="find judgement", delays=RETRY, retries_on=is_transient)
def find_judgement(root: Path, inputs: Inputs) -> str | None:
    """The candidate that was judged from the same inputs, here or by anyone who shares the project."""
    return fingerprint.find_judgement(root, inputs.model, inputs.fingerprint)


@step(hours=1, name="fetch champion", delays=RETRY, retries_on=is_transient)
def fetch_champion(tree: Path, model: str) -> Champion | None:
    """The champion and its files, in artifacts/<model>/champion; None where there is none yet."""
    return registry.fetch_champion(tree, model, _champion_folder(tree, model))


@step(hours=1)
def validate(tree: Path, model: str) -> bool:
    """Great Expectations on the manifest of all batches."""
    return intact.reproduce(tree, "validate", model, runner().log)


@step(hours=48)
def train(tree: Path, model: str) -> bool:
    """The learner, in a process of its own; ends with the exported program."""
    with runner().training(model) as on_line:
        return intact.reproduce(tree, "train", model, on_line)


@step(hours=4)
def evaluate(tree: Path, model: str) -> bool:
    """The program over the test examples."""
    return intact.reproduce(tree, "evaluate", model, runner().log)


@step(hours=2)
def judge(tree: Path, model: str, champion: Champion | None) -> Verdict:
    """Both models on the same examples, and the gate's answer."""
    from tasks import judge as judging

    folder = _champion_folder(tree, model) if champion else None
    verdict = judging.judge(tree, model, folder, champion.version if champion else None)
    for reason in verdict.reasons:
        runner().log(f"{verdict.outcome}: {reason}")
    if verdict.outcome == "ERROR":
        raise RatchetError(f"{model} could not be judged: {'; '.join(verdict.reasons)}")
    return verdict


@step(hours=1)
def report(tree: Path, inputs: Inputs, name: str, verdict: Verdict, champion: Champion | None) -> Path:
    """One self-contained HTML file."""
    from tasks.report import write_report

    folder = _champion_folder(tree, inputs.model) if champion else None
    return write_report(tree, inputs.model, verdict, folder, lineage(tree, inputs, name, champion))


@step(hours=1, delays=(0.0,))
def package(tree: Path, model: str) -> Path:
    """The Bento, smoke-tested in a process of its own. One retry: the machine may have been too busy to start it."""
    packaged = packaging.package(tree, model, registry.next_version(tree, model))
    runner().log(f"{packaged.bento.name}: {packaged.size_mb:.1f} MB, {packaged.requests} smoke test requests passed")
    return packaged.bento


@step(hours=1)
def save(tree: Path, inputs: Inputs, verdict: Verdict, champion: Champion | None) -> Candidate:
    """The candidate as a DVC experiment, whatever the verdict."""
    return promotion.save(tree, inputs, verdict, champion)


@step(hours=4, delays=RETRY, retries_on=is_transient)
def promote(tree: Path, candidate: Candidate, champion: Champion | None) -> Champion:
    """Bytes, then commits, then tags: the new champion."""
    promotion.publish_candidate(tree, candidate)
    return promotion.promote(tree, candidate, champion)


@step(hours=4, delays=RETRY, retries_on=is_transient)
def record_judgement(tree: Path, candidate: Candidate) -> None:
    """Publishes a candidate that is not promoted, and records that its inputs were judged."""
    promotion.publish_candidate(tree, candidate)
    promotion.record_judgement(tree, candidate)


@step(hours=4, name="await approval", delays=RETRY, retries_on=is_transient)
def await_approval(tree: Path, candidate: Candidate, champion: Champion | None) -> None:
    """Publishes a candidate that is better, and records that it waits for a person."""
    promotion.publish_candidate(tree, candidate)
    approval.await_approval(tree, candidate, champion)


def _champion_folder(tree: Path, model: str) -> Path:
    return tree / "artifacts" / model / "champion"
