"""A warm process: holds libraries that take seconds to import, and forks for each command that it is asked to run.

Run as: python -P warm_server.py FOLDER PLAN, with a pipe as standard input that ends when its owner does. It imports
nothing of ours: a fork runs the code of the worktree that the request came from. Of threads, only those of OpenBLAS and
jemalloc are alive when it forks, and both provide for that; ONNX Runtime starts one of its own, so it is not loaded.
"""

import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import site
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

STARTED = b"started"  # warm_client.py has the other end
MAX_FDS = 253  # what Linux passes on at once
REQUEST_TIMEOUT_S = 10.0  # for a client to say what it wants
# Variables that libraries read while they are imported: where they differ, a fork would not be what the real one is.
READ_AT_IMPORT = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "TORCH", "PYTORCH_", "LD_", "GX_", "PREFECT_"),
    *("MALLOC_", "ARROW_", "PYTHONHASHSEED", "PYTHONWARNINGS", "PYTHONHOME"),
)
PR_SET_PDEATHSIG = 1


def main(folder: str, plan: list[dict[str, Any]]) -> None:
    """Serves each group of the plan from a process of its own; they are loaded one after another."""
    environment = _read_at_import(dict(os.environ))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as tasks/train.py has it, read as torch loads
    for number, group in enumerate(plan):
        loaded, ready = os.pipe()
        if os.fork() == 0:
            os.close(loaded)
            for other in plan[number + 1 :]:
                os.close(other["listener"])
            _serve(folder, group, environment, ready)
        os.close(ready)
        os.close(group["listener"])
        os.read(loaded, 1)
        os.close(loaded)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends the others, and this one with them
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _serve(folder: str, group: dict[str, Any], environment: dict[str, str], ready: int) -> NoReturn:
    installed, start = _installed(), time.perf_counter()
    _load(group["loads"])
    os.close(ready)
    what, seconds = ", ".join(group["serves"]), time.perf_counter() - start
    print(f"{time.strftime('%F %T')} process {os.getpid()} is warm for {what} after {seconds:.1f} s")
    _Server(folder, socket.socket(fileno=group["listener"]), environment, installed).serve()


def _load(names: list[str]) -> None:
    """Imports these modules. One that cannot be imported costs the time that it would have saved, and no more."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:  # not installed: few use all of them
            continue
        except Exception:
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # what is loaded stays shared with the forks


def _installed() -> list[int]:
    """Changes with every package that is installed, updated or removed."""
    return [folder.stat().st_mtime_ns for folder in map(Path, site.getsitepackages()) if folder.is_dir()]


def _read_at_import(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT)}


class _Server:
    def __init__(self, folder: str, listener: socket.socket, environment: dict[str, str], installed: list[int]) -> None:
        self._folder = folder
        self._listener = listener
        self._environment = environment
        self._installed = installed
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, socket.socket] = {}  # of each fork, by its process ID

    def serve(self) -> NoReturn:
        """Until the owner ends; what still runs then is killed."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._end)
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _end(self) -> NoReturn:
        for pid in self._connections:
            _kill_tree(pid)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        fds: list[int] = []
        try:
            connection.settimeout(REQUEST_TIMEOUT_S)
            request = _receive(connection, fds)
            connection.settimeout(None)
            if self._refuses(request):
                connection.close()
                return
            connection.sendall(STARTED)
            self._fork(request, connection, fds)
        except (OSError, ValueError):  # whoever asked is gone
            connection.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _refuses(self, request: dict[str, Any]) -> bool:
        return _installed() != self._installed or _read_at_import(request["env"]) != self._environment

    def _fork(self, request: dict[str, Any], connection: socket.socket, fds: list[int]) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:
                os._exit(1)
            self._release()
            connection.close()
            _run(request, fds, f"{self._folder}/bin/python")
        with suppress(OSError):
            os.setpgid(pid, pid)
        exited = os.pidfd_open(pid)
        self._connections[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._pass_on(pid))
        self._selector.register(exited, selectors.EVENT_READ, lambda: self._report(pid, exited))

    def _release(self) -> None:
        """Closes, in a fork, what is its parent's: but for standard input, which is replaced."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif key.fd:
                os.close(key.fd)
        self._selector.close()

    def _pass_on(self, pid: int) -> None:
        """Signals that the client got, to the fork's process group; a client that is gone takes along what it began."""
        try:
            numbers = self._connections[pid].recv(64)
        except OSError:
            numbers = b""
        for number in numbers:
            _signal_group(pid, number)
        if not numbers:
            _kill_tree(pid)
            self._selector.unregister(self._connections[pid])

    def _report(self, pid: int, exited: int) -> None:
        """The fork's exit code to its client; negative: the signal that ended it."""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._selector.unregister(exited)
        os.close(exited)
        connection = self._connections.pop(pid)
        with suppress(KeyError):
            self._selector.unregister(connection)
        with suppress(OSError):
            connection.sendall(str(code).encode())
        connection.close()


def _receive(connection: socket.socket, fds: list[int]) -> dict[str, Any]:
    """A request; `fds` gets the client's file descriptors, in the order of request["fds"]."""
    head, received, _, _ = socket.recv_fds(connection, 4, MAX_FDS)
    fds += received
    length, content = int.from_bytes(head, "big"), bytearray()
    while len(content) < length:
        if not (chunk := connection.recv(length - len(content))):
            raise ValueError("the request is cut short")
        content += chunk
    request: dict[str, Any] = json.loads(content)
    return request


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _kill_tree(pid: int) -> None:
    """Kills a process and all that it started, also what went to a group of its own."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    pending = [pid]
    while pending:
        current = pending.pop()
        pending += children.get(current, [])
        with suppress(ProcessLookupError):
            os.kill(current, signal.SIGKILL)


def _run(request: dict[str, Any], fds: list[int], python: str) -> NoReturn:
    """In a fork: what `python` would do with these arguments, to the end of the process."""
    code = 1
    try:
        _take_fds(fds, request["fds"])
        _take_over(request)
        sys.executable = python  # what it starts in turn may be warm, too
        code = _exit_code(request["arguments"])
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads as the interpreter's end does
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _take_fds(fds: list[int], numbers: list[int]) -> None:
    """Gives each file descriptor the number that it has in the client."""
    above = max([*fds, *numbers]) + 1
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
        os.close(copy)


def _take_over(request: dict[str, Any]) -> None:
    """The client's environment and folder, as if this interpreter had been started there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    sys.path[:0] = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else each fork would draw the same numbers where nobody gave a seed


def _exit_code(arguments: list[str]) -> int:
    """Runs `-m MODULE …` or `SCRIPT …`, with or without `-P`; what python would end with."""
    safe = arguments[0] == "-P" or bool(os.environ.get("PYTHONSAFEPATH"))
    given = arguments[1:] if arguments[0] == "-P" else arguments
    is_module = given[0] == "-m"
    sys.argv = given[1:] if is_module else given
    if not safe:
        sys.path.insert(0, str(Path.cwd() if is_module else Path(given[0]).resolve().parent))
    try:
        if is_module:
            runpy.run_module(given[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(given[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
