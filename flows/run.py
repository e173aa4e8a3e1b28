"""Runs the flow in this process, as the command line and the tests do."""

from pathlib import Path

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import show
from flows.retrain import retrain
from tasks.handover import Outcome


def run_retrain(root: Path, model: str, revision: str = "HEAD", force: bool = False) -> Outcome:
    """One run to its end. Raises the RatchetError that it ended with."""
    show.quiet()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # its thread costs a second at the end
        state = retrain(model, revision, force, str(root), return_state=True)
    return state.result()  # type: ignore[return-value]  # a flow that returns a state gives the state's data
