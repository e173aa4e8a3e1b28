"""Runs the flow in this process, as the command line and the tests do."""

from pathlib import Path

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from flows import show
from flows.retrain import retrain
from models.common.errors import RatchetError
from tasks.handover import Outcome

SETTINGS = {
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # its thread costs a second at the end
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,  # Prefect's 20 are too few on a busy machine
}


def run_retrain(root: Path, model: str, revision: str = "HEAD", force: bool = False) -> Outcome:
    """One run to its end. Raises the RatchetError that it ended with, or one that says no server answers."""
    show.quiet()
    _check_server()
    with temporary_settings(SETTINGS):
        state = retrain(model, revision, force, str(root), return_state=True)
    return state.result()  # type: ignore[return-value]  # a flow that returns a state gives the state's data


def _check_server() -> None:
    url = PREFECT_API_URL.value()
    if not url:
        return  # a temporary server of this run's own
    try:
        httpx.get(f"{url}/health", timeout=30).raise_for_status()
    except httpx.HTTPError as error:
        raise RatchetError(
            f"The Prefect server at PREFECT_API_URL={url} does not answer ({error})."
            " Start it: prefect server start; or run without one: unset PREFECT_API_URL"
        ) from None
