"""The process of one run under `ratchet up`: python -m flows.up.run FLOW_RUN_ID, in the project's folder."""

import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Scheduled

from flows.retraining import show
from flows.retraining.flow import retrain
from flows.retraining.one_at_a_time import BusyError, one_at_a_time
from flows.up.runs import keep_answer, shared_server
from models.common.errors import RatchetError
from tasks.run_outcome import RunOutcome

AGAIN_S = 20.0  # s; of a model that another machine retrains


def main(run: str) -> None:
    """Carries out a flow run that the server knows; its state and its answer say how it ended."""
    show.filter_logs()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # whoever started us sees that we live
        with get_client(sync_client=True) as client:
            flow_run = client.read_flow_run(UUID(run))
        try:
            with one_at_a_time(str(flow_run.parameters["model"])) if shared_server() else nullcontext():
                state = run_flow(retrain, flow_run=flow_run, return_type="state")
        except BusyError as error:
            _put_off(flow_run, error)
            return
        assert isinstance(state, State)
        _keep(run, state)


def _put_off(run: FlowRun, error: BusyError) -> None:
    """It is tried again a little later."""
    later = datetime.now(UTC) + timedelta(seconds=AGAIN_S)
    state: State[None] = Scheduled(name="RUNS ELSEWHERE", message=str(error), scheduled_time=later)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def _keep(run: str, state: "State[RunOutcome]") -> None:
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunOutcome):
        keep_answer(Path.cwd(), run, result.to_json())
    else:
        code = result.exit_code if isinstance(result, RatchetError) else 1
        keep_answer(Path.cwd(), run, {"error": str(result), "exit_code": code})


if __name__ == "__main__":
    main(sys.argv[1])
