"""The process of one run under `ratchet up`: python -m flows.up.run FLOW_RUN_ID, in the project's folder."""

import sys
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.retraining import show
from flows.retraining.flow import retrain
from flows.up.runs import keep_answer
from models.common.errors import RatchetError
from tasks.run_outcome import RunOutcome


def main(run: str) -> None:
    """Carries out a flow run that the server knows; its state and its answer say how it ended."""
    show.filter_logs()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # whoever started us sees that we live
        with get_client(sync_client=True) as client:
            flow_run = client.read_flow_run(UUID(run))
        state = run_flow(retrain, flow_run=flow_run, return_type="state")
        assert isinstance(state, State)
        _keep(run, state)


def _keep(run: str, state: "State[RunOutcome]") -> None:
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunOutcome):
        keep_answer(Path.cwd(), run, result.to_json())
    else:
        code = result.exit_code if isinstance(result, RatchetError) else 1
        keep_answer(Path.cwd(), run, {"error": str(result), "exit_code": code})


if __name__ == "__main__":
    main(sys.argv[1])
