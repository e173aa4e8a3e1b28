"""Runs a Bento on this machine: `ratchet serve` in the foreground, packaging for as long as its checks take."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import yaml

from models.common.errors import RatchetError, UserError
from models.common.kind import load_kind
from tasks.project.locks import holder, lock, temporary_folder
from tasks.project.paths import home as home_of
from tasks.project.processes import start_guarded, stop_guarded

START_TIMEOUT_S = 120.0  # a service that is not ready by then will not be; 4 to 15 s are usual
STOP_TIMEOUT_S = 10.0  # what a service gets to finish its requests
START_ATTEMPTS = 3
PORT_TAKEN = "Address already in use"


def serve(bento: Path, home: Path, host: str = "127.0.0.1", port: int = 3000) -> None:
    """Serves a .bento file until interrupted; prints its URL once it is ready. UserError where it cannot start."""
    address = "127.0.0.1" if host == "localhost" else host
    _check_port_free(address, port)
    folder = unpack(bento, home / "bentos")
    metadata = yaml.safe_load((folder / "bento.yaml").read_text())
    log = {"RATCHET_PREDICTION_LOG": str(home / "predictions")}
    print(f"Starting {metadata['name']} {metadata['version']} …", flush=True)
    name = f"serve/{metadata['name']}/{metadata['version']} at {address}:{port}"
    with lock(home, name), running(folder, address, port, extra=log) as process:
        form = " ".join(f"-F {name}=@FILE" for name in load_kind(metadata["labels"]["kind"]).SERVICE.fields)
        url = f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{port}"
        print(f"{metadata['name']} {metadata['version']} is ready: curl {form} {url}/predict", flush=True)
        _wait(process)
    print(f"Stopped. What it answered is logged in {home / 'predictions' / metadata['name']}")


def served(root: Path, model: str) -> tuple[str, ...]:
    """What `ratchet serve` of this project serves of a model on this machine: "v1.2.0 at 127.0.0.1:3000"."""
    folder = home_of(root) / "locks" / "serve" / model
    names = sorted(path.name.removesuffix(".lock") for path in folder.glob("*.lock"))
    return tuple(name for name in names if holder(home_of(root), f"serve/{model}/{name}"))


def unpack(bento: Path, into: Path) -> Path:
    """The folder of an unpacked .bento file, `into`/<model>-<version>-<hash>; unpacked once."""
    try:
        digest = hashlib.sha256(bento.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise UserError(f"{bento} cannot be read: {error.strerror}. Make one: ratchet retrain {bento.stem}") from error
    with suppress(FileNotFoundError):  # `ratchet gc` was faster
        if unpacked := next(into.glob(f"*-{digest}"), None):
            os.utime(unpacked)  # used today, so `ratchet gc` leaves it alone
            return unpacked
    with temporary_folder(into, ".unpacking-") as work:
        partial = work / "bento"
        try:
            _extract(bento, partial)
            metadata = yaml.safe_load((partial / "bento.yaml").read_text())
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise UserError(f"{bento} is not a Bento: {error}") from error
        folder = into / f"{metadata['name']}-{metadata['version']}-{digest}"
        os.utime(partial)
        with suppress(OSError):  # another process was faster; its copy is the same
            partial.rename(folder)
    return folder


def _extract(bento: Path, into: Path) -> None:
    with tarfile.open(bento) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4; refuses paths and links that lead outside
            archive.extractall(into, filter="data")
        else:
            archive.extractall(into)


@contextmanager
def running(
    folder: Path,
    host: str,
    port: int,
    log: Path | None = None,
    extra: dict[str, str] | None = None,
    interpreter: str = sys.executable,
) -> Iterator[subprocess.Popen[bytes]]:
    """A Bento's service in a process group of its own, ready to answer; gone when the block ends, however it ends.

    `log` takes what it prints (else: our own output). RatchetError with its reason where it does not get ready.
    """
    with ExitStack() as stack:
        yield _start(stack, folder, host, port, log, extra or {}, interpreter)


def _start(
    stack: ExitStack, folder: Path, host: str, port: int, log: Path | None, extra: dict[str, str], interpreter: str
) -> subprocess.Popen[bytes]:
    """The service, ready. BentoML picks further ports for itself, which another process may take first: again then."""
    for attempt in range(1, START_ATTEMPTS + 1):
        with ExitStack() as started:
            process = started.enter_context(_process(folder, host, port, log, extra, interpreter))
            try:
                _wait_until_ready(process, f"http://{host}:{port}", log)
            except RatchetError as error:
                if PORT_TAKEN not in str(error) or attempt == START_ATTEMPTS:
                    raise
                continue
            stack.push(started.pop_all())
            return process
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _process(
    folder: Path, host: str, port: int, log: Path | None, extra: dict[str, str], interpreter: str
) -> Iterator[subprocess.Popen[bytes]]:
    with temporary_folder(folder.parent, ".serving-") as bentoml_home, ExitStack() as stack:  # never the user's own
        output: IO[bytes] | None = stack.enter_context(log.open("wb")) if log else None
        command = [interpreter, "-m", "bentoml", "serve", str(folder), "--host", host, "--port", str(port)]
        environment = os.environ | {"BENTOML_HOME": str(bentoml_home), "BENTOML_DO_NOT_TRACK": "true"} | extra
        environment.pop("PYTHONPATH", None)  # the service finds its code in the Bento, not in a checkout
        process = start_guarded(command, folder, environment, output)
        try:
            yield process
        finally:
            stop_guarded(process, STOP_TIMEOUT_S)


def free_port() -> int:
    """A port that was free on this machine a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _check_port_free(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except socket.gaierror:
        raise UserError(f"--host '{host}' is not an IP address; for this machine alone: 127.0.0.1") from None
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Cannot listen on {host}:{port} ({reason}). Choose another: --port {port % 65535 + 1}"
        ) from None


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path | None) -> None:
    import httpx

    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None or _failed(log):
            break
        try:
            if httpx.get(f"{url}/readyz", timeout=1, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise RatchetError(f"The service did not get ready: {_reason(log)}")


def _failed(log: Path | None) -> bool:
    """A worker that cannot start is started again and again by BentoML; only its log shows it."""
    return log is not None and b"Initializing service error" in log.read_bytes()


def _reason(log: Path | None) -> str:
    if log is None:
        return "see its messages above"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines or [f"no output within {START_TIMEOUT_S:.0f} s"])[-1][:400]


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until Ctrl-C, or a SIGTERM, which counts as one (also where a script started us with Ctrl-C switched off)."""
    previous_handlers = {
        number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        process.wait()
        raise RatchetError("The service ended by itself; see its messages above")
    except KeyboardInterrupt:
        print("\nStopping …", flush=True)
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
