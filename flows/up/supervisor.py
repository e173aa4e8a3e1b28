"""`ratchet up`: starts what the loop needs, looks after it, and ends it cleanly."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import httpx

from flows.up import place
from flows.up.chores import clean_up, in_background
from flows.up.deployments import (
    NEW_DATA_EVENT,
    POOL,
    apply_deployments,
    read_schedules,
    resource,
)
from flows.up.dispatcher import Dispatcher
from flows.up.health import HealthServer
from flows.up.place import Place
from flows.up.runs import SHARED_SERVER
from flows.up.server import PrefectServer, answers
from flows.up.watch import Finding, Watch
from models.common.errors import RatchetError
from tasks.project.paths import home, main_checkout
from tasks.project.warm import warm_processes
from tasks.serve import free_port

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

TICK_S = 0.5
HEARTBEAT_S = 15.0  # of our worker, for Prefect's pages
GC_S = 24 * 3600.0
FIRST_GC_S = 600.0  # after the start, which has other things to do
PARAMS_S = 2.0  # how often params.yaml is looked at
STALLED_S = 60.0  # without a tick: not healthy
DEFAULT_PORTS = {"pages": 4200, "health": 4280}


@dataclass
class Options:
    """What the command line may change."""

    look_every: float = 60.0  # s between two looks at the remote
    slots: int | None = None  # runs at a time; None: as many as there are GPUs, else 1
    ports: dict[str, int] = field(default_factory=dict)  # "pages", "health"


def up(root: Path, options: Options, say: Callable[[str], None], show: Callable[["Supervisor"], None]) -> None:
    """Runs until SIGINT or SIGTERM. UserError where it runs already; RatchetError where no server can be had."""
    root = main_checkout(root)
    with place.only_one(root), ExitStack() as stack:
        os.chdir(root)
        supervisor = Supervisor(root, options, say)
        with _signals(supervisor), suppress(KeyboardInterrupt):
            supervisor.start(stack)
            say(f"Prefect's pages: {supervisor.place.pages}   health: {supervisor.place.health}")
            while not supervisor.ending.wait(TICK_S):
                supervisor.tick()
                show(supervisor)
            say("ending …")


class Supervisor:
    """The parts of `ratchet up` and what they share."""

    def __init__(self, root: Path, options: Options, say: Callable[[str], None]) -> None:
        self.root, self.options, self.say = root, options, say
        self.ending = threading.Event()
        self.started = False
        self.place: Place
        self.problems: dict[str, str] = {}  # what is not well, by part
        self._found: SimpleQueue[Finding] = SimpleQueue()
        self._last: dict[str, float] = {}  # monotonic time of what is done now and then, s
        self._params: tuple[int, int] | None = None
        self._ticked = time.monotonic()
        self._server: PrefectServer | None = None

    def start(self, stack: ExitStack) -> None:
        """Server, health, deployments, worker; each is ended by the stack."""
        ports = self._ports()
        api = self._start_server(stack, ports["pages"])
        os.environ["PREFECT_API_URL"] = api
        os.environ.update(stack.enter_context(warm_processes(home(self.root))))
        self._client = self._connect(stack)
        slots, gpus = self._count_slots()
        self.dispatcher = Dispatcher(self.root, self._client, slots, gpus, self.say)
        self.dispatcher.environment = {"PREFECT_API_URL": api, SHARED_SERVER: str(int(self._server is None))}
        stack.callback(self.dispatcher.stop)
        self.watch = Watch(self.root, self.options.look_every, self._found.put, self.say)
        health = HealthServer(ports["health"], self.report, self.watch.look_now)
        health.start()
        stack.callback(health.stop)
        self._last["gc"] = time.monotonic() - GC_S + FIRST_GC_S
        self.place = Place(os.getpid(), api, health.url, time.time())
        self._prepare_pool()
        self._apply_params()
        self.dispatcher.recover()
        self.watch.start()
        stack.callback(self.watch.stop)
        place.publish(self.root, self.place)
        self.started = True

    def tick(self) -> None:
        """What has to be done now. What Prefect does not answer is tried again; a server of our own is restarted."""
        self._ticked = time.monotonic()
        if self._server and not self._server.is_alive():  # seen sooner than by the client, which tries for a minute
            self.say("Prefect's server is gone; starting it again …")
            self._server.start()
        try:
            if self._every("params", PARAMS_S):
                self._apply_params()
            if self._every("heartbeat", HEARTBEAT_S):
                self._client.send_worker_heartbeat(POOL, socket.gethostname(), heartbeat_interval_seconds=HEARTBEAT_S)
            if self._every("gc", GC_S):
                in_background("gc", lambda: clean_up(self.root, self.say))
            self._tell_findings()
            self.dispatcher.tick()
            self.problems.pop("server", None)
            self.problems.pop("loop", None)
        except httpx.HTTPError as error:
            self._problem("server", f"Prefect's server does not answer: {error or type(error).__name__}")
        except Exception as error:  # a run that someone deleted, a full disk, …: the next tick may do better
            self._problem("loop", f"{type(error).__name__}: {' '.join(str(error).split())}")

    def report(self) -> tuple[bool, dict[str, Any]]:
        """For the health address."""
        stalled = time.monotonic() - self._ticked > STALLED_S
        well = not stalled and not {"server", "loop"} & set(self.problems)
        running = [{"model": run.model, "run": run.id} for run in list(self.dispatcher.running.values())]
        return well, {
            "status": "ok" if well else "not ok",
            "since": self.place.since,
            "pages": self.place.pages,
            "running": running,
            "waiting": [run.model for run in self.dispatcher.waiting],
            "problems": list(self.problems.values()) + (["the worker does not move"] if stalled else []),
        }

    def _every(self, what: str, seconds: float) -> bool:
        if time.monotonic() - self._last.get(what, -seconds) < seconds:
            return False
        self._last[what] = time.monotonic()
        return True

    def _ports(self) -> dict[str, int]:
        wanted = DEFAULT_PORTS | place.last_ports(self.root) | self.options.ports
        chosen: dict[str, int] = {}
        for name, port in wanted.items():
            chosen[name] = port if _is_free(port) else free_port()
        place.keep_ports(self.root, chosen)
        return chosen

    def _start_server(self, stack: ExitStack, port: int) -> str:
        if api := os.environ.get("PREFECT_API_URL"):
            if not answers(api, 30):
                raise RatchetError(
                    f"The Prefect server at PREFECT_API_URL={api} does not answer."
                    " Start it: prefect server start; or unset PREFECT_API_URL, and `ratchet up` starts one"
                )
            return api
        self.say("starting Prefect's server …")
        self._server = PrefectServer(home(self.root), port)
        stack.callback(self._server.stop)
        self._server.start()
        return self._server.api

    def _connect(self, stack: ExitStack) -> "SyncPrefectClient":
        from prefect.client.orchestration import get_client

        return stack.enter_context(get_client(sync_client=True))

    def _prepare_pool(self) -> None:
        from prefect.client.schemas.actions import WorkPoolCreate

        self._client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)

    def _count_slots(self) -> tuple[int, bool]:
        gpus = count_gpus()
        return self.options.slots or gpus or 1, gpus > 0

    def _apply_params(self) -> None:
        """Takes over params.yaml where it changed; one that is wrong leaves what was."""
        stat = (self.root / "params.yaml").stat()
        seen = (stat.st_mtime_ns, stat.st_size)
        if self._params == seen:
            return
        try:
            schedules, problems = read_schedules(self.root)
        except RatchetError as error:
            self._params = seen
            self._params_problem(str(error))
            return
        problems += apply_deployments(self._client, self.root, schedules)
        self._params = seen  # not before: where Prefect did not answer, it is tried again
        self.dispatcher.schedules = {**self.dispatcher.schedules, **schedules}
        self.say(f"models: {', '.join(schedules) or 'none'}")
        self._params_problem("; ".join(problems))

    def _params_problem(self, problem: str) -> None:
        self.problems.pop("params", None)
        if problem:
            self.problems["params"] = problem
            self.say(f"params.yaml was not taken over in whole: {problem}")

    def _tell_findings(self) -> None:
        while True:
            try:
                finding = self._found.get_nowait()
            except Empty:
                return
            try:
                self._emit(finding)
            except httpx.HTTPError:
                self._found.put(finding)  # for the next tick
                raise
            self.say(f"{finding.model}: something new to judge ({finding.data_version})")

    def _emit(self, finding: Finding) -> None:
        """As an event: Prefect's automation starts the run."""
        from prefect.events import Event, Resource

        labels = {"prefect.resource.id": resource(finding.model), "prefect.resource.name": finding.model}
        event = Event(
            event=NEW_DATA_EVENT,
            resource=Resource(labels),
            payload={"commit": finding.commit, "data_version": finding.data_version},
        )
        self._client._client.post("/events", json=[event.model_dump(mode="json")]).raise_for_status()

    def _problem(self, what: str, message: str) -> None:
        if self.problems.get(what) != message:  # said once, not at every tick
            self.say(message)
        self.problems[what] = message


def count_gpus() -> int:
    """NVIDIA GPUs of this machine, as their driver counts them."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0


@contextmanager
def _signals(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C and SIGTERM interrupt the start, and end the loop after the tick that is going on."""

    def end(*_: Any) -> None:
        supervisor.ending.set()
        if not supervisor.started:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
