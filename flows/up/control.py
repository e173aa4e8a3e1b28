"""`ratchet up`, in the foreground or in the background, and `ratchet down`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from flows.up.place import LOCK, Place, find_up, only_one
from models.common.errors import RatchetError, UserError
from tasks.project.locks import holder
from tasks.project.paths import home, main_checkout
from tasks.project.repository import environment

DETACHED = "RATCHET_DETACHED"  # set for a `ratchet up` in the background
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.1


def up(root: Path, look_every: float = 60.0, slots: int | None = None, ports: dict[str, int] | None = None) -> None:
    """Runs until Ctrl-C or SIGTERM. UserError where it runs already."""
    from flows.up import supervisor
    from flows.up.display import display

    with display() as shown, _in_file_too(root, shown.say) as say:
        supervisor.up(root, supervisor.Options(look_every, slots, ports or {}), say, shown.show)
        say("ended")


@contextmanager
def _in_file_too(root: Path, say: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """What is said is in `.ratchet/logs/up.log`, too; in the background standard output is that file already."""
    if DETACHED in os.environ:
        yield say
        return
    with _log_file(root).open("a", buffering=1) as log:

        def say_twice(line: str) -> None:
            say(line)
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

        yield say_twice


def _log_file(root: Path) -> Path:
    path = home(root) / "logs" / "up.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def detach(root: Path, arguments: Sequence[str]) -> Place:
    """Starts it in the background and waits until it is ready. RatchetError with its last line where it does not."""
    root = main_checkout(root)
    with only_one(root):
        pass  # says where the first one is
    log = _log_file(root)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", *arguments],
            cwd=root,
            env=environment({DETACHED: "1"}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if place := find_up(root):
            return place
        time.sleep(POLL_S)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise RatchetError(f"`ratchet up` did not get ready: {lines[-1] if lines else 'it said nothing'}. Its log: {log}")


def down(root: Path) -> str:
    """Ends it and waits until it has; gives a line that says so. UserError where none runs."""
    process_id = holder(home(root), LOCK)
    if not process_id:
        raise UserError("No `ratchet up` runs in this project on this machine. Start one: ratchet up --detach")
    os.kill(process_id, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while holder(home(root), LOCK) == process_id:
        if time.monotonic() > deadline:
            raise RatchetError(f"`ratchet up` (process {process_id}) does not end; its log: .ratchet/logs/up.log")
        time.sleep(POLL_S)
    with suppress(psutil.Error):  # it is gone, or a moment later will be
        psutil.Process(process_id).wait(5)
    return f"Ended `ratchet up` (process {process_id})"
