"""Runs the flow in this process, as the command line and the tests do."""

import signal
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
from tasks.run_outcome import RunOutcome

SETTINGS = {
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # its thread costs a second at the end
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180,  # Prefect's 20 are too few on a busy machine
}


def run_retrain(root: Path, model: str, revision: str = "HEAD", force: bool = False) -> RunOutcome:
    """One run to its end. Raises the RatchetError that it ended with, or one where no Prefect server answers."""
    show.filter_logs()
    with temporary_settings(SETTINGS):
        if PREFECT_API_URL.value():
            _check_server(PREFECT_API_URL.value())
        else:
            _start_server()
        state = retrain(model, revision, force, str(root), return_state=True)
    return state.result()  # type: ignore[return-value]  # a flow that returns a state gives the state's data


def _start_server() -> None:
    """Prefect's temporary server, which ignores Ctrl-C: it must still be there to record how the run ended.

    A signal mask is what a child process inherits, so it is set while the server starts.
    """
    from prefect.server.api.server import SubprocessASGIServer  # 3 s to import

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _check_server(url: str) -> None:
    try:
        httpx.get(f"{url}/health", timeout=30).raise_for_status()
    except httpx.HTTPError as error:
        raise RatchetError(
            f"The Prefect server at PREFECT_API_URL={url} does not answer ({error})."
            " Start it: prefect server start; or run without one: unset PREFECT_API_URL"
        ) from None
