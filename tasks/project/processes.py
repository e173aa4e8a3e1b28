"""Processes that end when the one that started them does, however that ends."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# When our end of the pipe closes, the shell ends its process group.
WATCHDOG = """exec 3<&0; trap : TERM
(trap : TERM; cat <&3 >/dev/null; kill -%s 0) &
"$@" </dev/null 3<&-
kill -KILL 0"""


def start_guarded(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], output: IO[bytes] | None, end_by: str = "TERM"
) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, which ends with this process. `output`: else our own.

    end_by: the signal that it then gets. Its exit status is lost: the group ends by a signal.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", WATCHDOG % end_by, "watchdog", *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def stop_guarded(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Asks it and its children to end, then kills them. They may have sessions of their own, so each is waited for."""
    import psutil

    assert process.stdin
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.stdin.close()
    _, alive = psutil.wait_procs(children, seconds)
    for child in alive:
        child.kill()
    process.wait()
