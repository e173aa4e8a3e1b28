"""Runs a retrain in this process: as a Prefect flow where PREFECT_API_URL names a server, else without Prefect."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.common.errors import RatchetError
from tasks.project.fingerprint import read_inputs
from tasks.project.paths import home
from tasks.project.warm import warm_processes
from tasks.run_outcome import RunOutcome


def run_retrain(root: Path, model: str, revision: str = "HEAD", force: bool = False) -> RunOutcome:
    """One run to its end. Raises the RatchetError that it ended with, or one where the Prefect server is not there."""
    with _warm(root):
        if url := os.environ.get("PREFECT_API_URL"):
            return _run_flow(url, root, model, revision, force)
        from flows.retraining.chain import retrain_model
        from flows.retraining.notify import and_tell

        return and_tell(root, model, lambda: retrain_model(root, read_inputs(root, model, revision), force))


@contextmanager
def _warm(root: Path) -> Iterator[None]:
    """Libraries are imported for the stages while everything before them goes on."""
    with warm_processes(home(root), for_one_run=True) as variables:
        os.environ.update(variables)
        try:
            yield
        finally:
            for name in variables:
                del os.environ[name]


def _run_flow(url: str, root: Path, model: str, revision: str, force: bool) -> RunOutcome:
    _check_server(url)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.retraining import show
    from flows.retraining.flow import retrain
    from flows.retraining.one_at_a_time import one_at_a_time

    show.filter_logs()
    quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})  # its thread costs a second at the end
    with quick, one_at_a_time(model):
        state = retrain(model, revision, force, str(root), return_state=True)
    return state.result()  # type: ignore[return-value]  # a flow that returns a state gives the state's data


def _check_server(url: str) -> None:
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=30).raise_for_status()
    except httpx.HTTPError as error:
        raise RatchetError(
            f"The Prefect server at PREFECT_API_URL={url} does not answer ({error})."
            " Start it: prefect server start; or run without one: unset PREFECT_API_URL"
        ) from None
