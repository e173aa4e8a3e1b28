"""The Prefect server that `ratchet up` keeps running: SQLite in `.ratchet/prefect`, its pages on 127.0.0.1."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from models.common.errors import RatchetError
from tasks.project.processes import start_guarded, stop_guarded
from tasks.project.repository import environment

START_TIMEOUT_S = 180.0  # 11 to 23 s are usual; a busy machine takes longer
STOP_TIMEOUT_S = 10.0
SETTINGS = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10",  # a new cron is seen soon
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(60 * 24 * 3600),
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P7D",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}


class PrefectServer:
    """A server of our own, as a child process."""

    def __init__(self, home: Path, port: int) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        self._port = port
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, or starts it again. RatchetError where it does not answer in time."""
        self.stop()
        log = self._home / "logs" / "prefect-server.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
        with log.open("wb") as output:
            self._process = start_guarded(
                [*command, "--port", str(self._port)], self._home, self._environment(), output
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.api):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RatchetError(f"Prefect's server does not start; its last words are in {log}")
            time.sleep(0.1)

    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends it."""
        if self._process:
            with suppress(ProcessLookupError):
                stop_guarded(self._process, STOP_TIMEOUT_S)
            self._process = None

    def _environment(self) -> dict[str, str]:
        own = {"PREFECT_HOME": str(self._home / "prefect"), "PREFECT_SERVER_UI_API_URL": self.api}
        given = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        return environment(SETTINGS | given | own)


def answers(api: str, seconds: float = 2.0) -> bool:
    """Whether a Prefect server answers at this address."""
    try:
        return httpx.get(f"{api}/health", timeout=seconds, trust_env=False).is_success
    except httpx.HTTPError:
        return False
