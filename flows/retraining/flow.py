"""The Prefect flow: the chain of one retrain (flows/retraining/chain.py), its steps as Prefect tasks.

Started by `ratchet retrain MODEL` where there is a Prefect server, by a schedule, or from Prefect's pages.
"""

from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

from prefect import State, Task, flow, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.retraining import show
from flows.retraining.chain import retrain_model
from flows.retraining.notify import and_tell
from flows.retraining.steps import Step, carried_out_by
from models.common.errors import DataBlockedError, RatchetError
from tasks.gating.verdict import Verdict
from tasks.project.fingerprint import Inputs, read_inputs
from tasks.project.stages import LineHandler
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


@cache
def _inputs_of_run(_run: str, root: str, model: str, revision: str) -> Inputs:
    """A revision may be a branch that moves: a run resolves it once, so its name and its work are of one commit."""
    return read_inputs(Path(root).resolve(), model, revision)


@flow(name="retrain", flow_run_name=run_name, validate_parameters=False, persist_result=False)
def retrain(model: str, revision: str = "HEAD", force: bool = False, root: str = ".") -> State[RunOutcome]:
    """Validates, trains, evaluates, judges, reports and, if the verdict is PROMOTE, packages and promotes."""
    project = Path(root).resolve()
    try:
        with carried_out_by(PrefectRunner()):
            outcome = and_tell(
                project,
                model,
                lambda: retrain_model(project, _inputs_of_run(flow_run.id, root, model, revision), force),
            )
    except RatchetError as error:
        state = "BLOCKED" if isinstance(error, DataBlockedError) else "ERROR"
        get_run_logger().error("%s", error)
        return Failed(name=state, message=str(error), data=error)
    return Completed(name=outcome.state.replace("_", " "), message="; ".join(outcome.reasons[:1]), data=outcome)


class PrefectRunner:
    """Steps as Prefect tasks: with its retries, time limits, logs and artifacts."""

    def call(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return as_task(step)(*args, **kwargs)

    def log(self, text: str, shown: bool = False) -> None:
        show.log_line(text, shown)

    def training(self, model: str) -> AbstractContextManager[LineHandler]:
        return show.training(model)

    def show_decision(self, model: str, verdict: Verdict, metrics: dict[str, Any], champion: str | None) -> None:
        show.decision(model, verdict)
        show.metrics(model, metrics, champion)

    def show_links(self, model: str, folder: Path) -> None:
        show.links(model, folder)


@cache
def as_task(step: Step[Any, Any]) -> Task[..., Any]:
    """The Prefect task that a step is where Prefect runs it."""
    return Task(
        step.function,
        name=step.name,
        cache_policy=NO_CACHE,
        retries=len(step.delays),
        retry_delay_seconds=list(step.delays) or 0,
        timeout_seconds=step.hours * HOUR,
        retry_condition_fn=lambda _task, _run, state: step.retries_on(state.result(raise_on_failure=False)),
    )
