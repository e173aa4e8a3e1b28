"""Takes what is due from Prefect's queue, one run of a model at a time, and sees to it that no run is left for dead."""

import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.up.chores import tell_that_a_run_is_gone
from flows.up.deployments import POOL, ModelSchedule
from flows.up.preparation import Preparation, prepare
from flows.up.queue import QueuedRun, plan
from flows.up.runs import RUN_FILE, RunProcess, keep_answer, start_run
from tasks.project.code import code_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

MAX_STARTS = 3  # of a run whose process ended before its time: the machine may have been switched off, or killed it
TERMINATED = "aborted by a termination signal"  # what Prefect says of a run that got a SIGTERM


class Dispatcher:
    """Runs of all models on this machine. Called again and again by the supervisor, from one thread."""

    def __init__(self, root: Path, client: "SyncPrefectClient", slots: int, gpus: bool, say: Callable[[str], None]):
        self.running: dict[str, RunProcess] = {}
        self.waiting: tuple[QueuedRun, ...] = ()
        self.schedules: Mapping[str, ModelSchedule] = {}
        self.environment: dict[str, str] = {}  # of the runs
        self.lost: list[
            tuple[str, str]
        ] = []  # (model, what happened) of runs whose process is gone; for a notification
        self._root, self._client, self._say = root, client, say
        self._slots, self._gpus = slots, gpus
        self._us = f"{socket.gethostname()}:{root}"  # as Prefect's record says where a run is
        self._prepared: dict[str, Future[Preparation]] = {}
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="prepare")  # git may wait for a network

    def recover(self) -> None:
        """Runs that a `ratchet up` before this one left are started again, also those that a SIGTERM to all ended."""
        for run in self._runs_in("RUNNING", "PENDING", "CANCELLING"):
            if self._is_ours(run):
                self._lost(run, "the process that ran it is gone")
        for run in self._runs_in("CRASHED"):
            if self._is_ours(run) and run.state and TERMINATED in str(run.state.message):
                self._lost(run, "the process that ran it was ended")

    def tick(self) -> None:
        """One look at everything: what ended, what was cancelled, what is due."""
        self._finish()
        self._cancel()
        due = self._due()
        ready = [run for run in due if self._is_ready(run)]
        decided = plan(ready, {run.model: len(run.slots) for run in self.running.values()}, self._slots)
        for run in decided.superseded:
            self._set(run.id, "CANCELLED", "SUPERSEDED", "a newer trigger asks for the same")
            keep_answer(
                self._root, run.id, {"error": "A newer run that asks for the same took its place", "exit_code": 1}
            )
        for run in decided.start:
            self._start(run)
        self.waiting = decided.waiting

    def stop(self) -> None:
        """Ends all runs; they are started again by the next `ratchet up`."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        threads = [threading.Thread(target=run.stop) for run in self.running.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for run in self.running.values():
            found = self._client.read_flow_run(UUID(run.id))
            if not (found.state and found.state.is_final() and not found.state.is_crashed()):
                self._again(found, "`ratchet up` ended")
        self.running.clear()

    def _finish(self) -> None:
        for run in [run for run in self.running.values() if not run.is_alive()]:
            del self.running[run.id]
            self._prepared = {}  # what waits for this model may have nothing to do any more
            found = self._client.read_flow_run(UUID(run.id))
            if found.state and found.state.is_final() and not found.state.is_crashed():
                self._say(f"{run.model}: {found.state.name}{_because(found.state)}")
            elif found.state and found.state.is_scheduled():
                self._say(f"{run.model}: put off{_because(found.state)}")
            else:
                self._lost(found, "its process ended before its time")

    def _lost(self, run: "FlowRun", why: str) -> None:
        model = str(run.parameters.get("model"))
        if run.state and run.state.is_cancelling():
            self._set(str(run.id), "CANCELLED", "Cancelled", why)
        elif run.run_count < MAX_STARTS:
            self._again(run, why)
        else:
            message = f"{why}, {run.run_count} times. What it printed: .ratchet/logs/runs/{run.id}.log"
            self._set(str(run.id), "CRASHED", "Crashed", message)
            keep_answer(self._root, str(run.id), {"error": message, "exit_code": 1})
            tell_that_a_run_is_gone(self._root, model, str(run.id), why)
            self._say(f"{model}: given up, {message}")

    def _again(self, run: "FlowRun", why: str) -> None:
        from prefect.states import Scheduled

        state: State[Any] = Scheduled(
            name="INTERRUPTED", message=f"{why}; it is started again", scheduled_time=datetime.now(UTC)
        )
        self._client.set_flow_run_state(run.id, state, force=True)
        self._say(f"{run.parameters.get('model')}: {why}; it is started again")

    def _cancel(self) -> None:
        for run in filter(self._is_ours, self._runs_in("CANCELLING")):
            if process := self.running.pop(str(run.id), None):
                process.stop()
            self._set(str(run.id), "CANCELLED", "Cancelled", "cancelled by a person")
            keep_answer(
                self._root, str(run.id), {"error": "cancelled; nothing in production changed", "exit_code": 130}
            )
            self._say(f"{run.parameters.get('model')}: cancelled")

    def _due(self) -> list[QueuedRun]:
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        answers = self._client.get_scheduled_flow_runs_for_work_pool(POOL, scheduled_before=soon)
        queued = [self._queued(answer.flow_run) for answer in answers]
        self._prepared = {
            run.id: self._prepared.get(run.id) or self._prepare(run, queued_run) for run, queued_run in queued
        }
        return [run for run, _ in queued]

    def _queued(self, run: "FlowRun") -> "tuple[QueuedRun, FlowRun]":
        model = str(run.parameters.get("model"))
        known = self.schedules.get(model)
        due = run.next_scheduled_start_time or run.expected_start_time or datetime.now(UTC)
        created = run.created or due
        asked = sorted((key, str(value)) for key, value in run.parameters.items())
        queued = QueuedRun(
            id=str(run.id),
            model=model,
            due=due.timestamp(),
            created=max(created, due).timestamp(),
            same=str(asked),
            priority=known.schedule.priority if known else 0,
            slots=known.slots if known else 1,
        )
        return queued, run

    def _prepare(self, queued: QueuedRun, run: "FlowRun") -> "Future[Preparation]":
        known = self.schedules.get(queued.model)
        automatic = run.auto_scheduled or (run.created_by is not None and run.created_by.type == "AUTOMATION")
        wait_for = known.schedule.wait_for if known and automatic else None
        return self._workers.submit(prepare, self._root, dict(run.parameters), wait_for)

    def _is_ready(self, run: QueuedRun) -> bool:
        """Whether there is something to do for it, as far as is known; a run that has nothing to do ends here."""
        future = self._prepared[run.id]
        if not future.done():
            return False
        found = future.result()
        if found.state is None:
            return True
        self._set(run.id, "COMPLETED", found.state, found.message)
        if found.name:
            self._client.set_flow_run_name(UUID(run.id), found.name)
        if found.outcome:
            keep_answer(self._root, run.id, found.outcome.to_json())
        self._say(f"{run.model}: {found.state}, {found.message}")
        return False

    def _start(self, run: QueuedRun) -> None:
        taken = {slot for other in self.running.values() for slot in other.slots}
        free = [slot for slot in range(self._slots) if slot not in taken][: max(1, min(run.slots, self._slots))]
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, free))} if self._gpus else {}
        if not self._claim(run.id):
            return
        commit = self._prepared[run.id].result().commit
        code = code_of(self._root, commit, RUN_FILE) if commit else self._root
        process = start_run(self._root, code, run.id, run.model, tuple(free), self.environment | devices)
        self.running[run.id] = process
        self._say(f"{run.model}: run started")

    def _claim(self, run: str) -> bool:
        """Whether it is ours now; of two machines that share a server only one gets it."""
        from prefect.client.schemas.responses import SetStateStatus
        from prefect.states import Pending

        pending: State[Any] = Pending()
        if self._client.set_flow_run_state(UUID(run), pending).status != SetStateStatus.ACCEPT:
            return False
        self._client.update_flow_run(UUID(run), infrastructure_pid=self._us)
        return True

    def _is_ours(self, run: "FlowRun") -> bool:
        """Also one that was claimed by a process that was killed before it wrote its name."""
        return run.infrastructure_pid in {self._us, None}

    def _runs_in(self, *states: str) -> "list[FlowRun]":
        from prefect.client.schemas.filters import (
            FlowRunFilter,
            FlowRunFilterState,
            FlowRunFilterStateType,
            WorkPoolFilter,
            WorkPoolFilterName,
        )
        from prefect.client.schemas.objects import StateType

        types = [StateType(name) for name in states]
        return self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        )

    def _set(self, run: str, kind: str, name: str, message: str) -> None:
        from prefect.client.schemas.objects import State, StateType

        state: State[Any] = State(type=StateType(kind), name=name, message=message)
        self._client.set_flow_run_state(UUID(run), state, force=True)


def _because(state: "State") -> str:
    return f": {state.message}" if state.message else ""
