"""Stands in for `python` where processes are warm: `python -m MODULE …` runs in a fork of the one that serves MODULE.

Run as: python -I -S warm_client.py SOCKETS ARGUMENTS…, with ARGUMENTS as for `python` itself. Whatever is not served,
or refused, is run by the real python. Takes some 20 ms, so it imports next to nothing, pathlib neither.
"""

# ruff: noqa: PTH109, PTH119, PTH208
import json
import os
import signal
import socket
import sys
from contextlib import suppress

STARTED = b"started"  # the answer of a warm process that takes the request; none: it refuses


def main(sockets: str, arguments: list[str]) -> None:
    """Ends as what was asked for ended: with its exit code, or by the same signal."""
    connection = _request(sockets, arguments) if arguments else None
    if connection is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: connection.send(bytes([number])))
    answer = connection.recv(64)
    if not answer:
        sys.exit("error: the warm process ended before its work was done")
    code = int(answer)
    if code < 0:
        with suppress(OSError):  # SIGKILL is as it is
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _request(sockets: str, arguments: list[str]) -> "socket.socket | None":
    """The connection to a warm process that does this for us; None where there is none, or it refuses."""
    given = arguments[1:] if arguments[0] == "-P" else arguments
    name = given[1] if given[:1] == ["-m"] and len(given) > 1 else os.path.basename(arguments[0])
    fds = _inherited()
    mask = os.umask(0)
    os.umask(mask)
    request = {"arguments": arguments, "cwd": os.getcwd(), "env": dict(os.environ), "umask": mask, "fds": fds}
    content = json.dumps(request).encode()
    connection = socket.socket(socket.AF_UNIX)
    with suppress(OSError):
        connection.connect(f"{sockets}/{name}")
        socket.send_fds(connection, [len(content).to_bytes(4, "big")], fds)
        connection.sendall(content)
        if connection.recv(len(STARTED), socket.MSG_WAITALL) == STARTED:
            return connection
    return None


def _inherited() -> list[int]:
    """The file descriptors that this process was started with."""
    fds = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the one that listed them
            if os.get_inheritable(number):
                fds.append(number)
    return fds


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
