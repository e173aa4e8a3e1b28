"""Runs one DVC stage of a model in a workspace, passing on what it says while it says it."""

import os
import pty
import re
import selectors
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from models.common.errors import DataBlockedError, PublishError, RatchetError, RegistryError, UserError
from tasks.project.repository import dvc, dvc_remote, environment
from tasks.project.workspace import MARK

Say = Callable[[str, bool], None]  # (a line of output, whether the terminal has shown it already)
FIRST = {"train": ("initial_weights",)}  # stages that run with another one, before it
BY_EXIT_CODE = {error.exit_code: error for error in (UserError, DataBlockedError, RegistryError, PublishError)}
NOISE = re.compile(
    r"^(To track the changes|\s*git add|To enable auto staging|\s*dvc config core\.autostage|Use `dvc push`|$"
    r"|(Updating|Generating) lock file|WARNING: Failed to pull run cache|\s*dvc remote add)"
)

RUN_CACHE_WARNING = re.compile(rb"[^\n]*WARNING[^\n]*Failed to pull run cache[^\n]*\n")  # a first run has none yet


def reproduce(tree: Path, stage: str, model: str, say: Say) -> bool:
    """`dvc repro` of one stage; False when DVC knew its result already. `say` gets each line of output.

    What training starts from is laid out right before it, in the same process: starting DVC takes a second or two.
    In a terminal the stage's progress bar shows, as its standard error is a terminal too. Raises the RatchetError
    that the stage ended with.
    """
    if stage == "validate" and not dvc_remote(tree):
        _check_out_data(tree, model)
    # the first stage fetches what is missing, also for the later ones; without a remote that option only fails
    fetch = ["--pull"] if stage == "validate" and dvc_remote(tree) else ["--single-item"]
    targets = [f"{name}@{model}" for name in (*FIRST.get(stage, ()), stage)]
    child = _Child([sys.executable, "-m", "dvc", "repro", *fetch, *targets], tree, say)
    if child.follow():
        raise _failure(stage, child.said)
    return any(line.startswith(f"> python -m tasks.{stage} ") for line in child.said)


def _check_out_data(tree: Path, model: str) -> None:
    """Links the model's batches from the cache. RatchetError when it has not all of them."""
    pointers = sorted(str(path.relative_to(tree)) for path in (tree / "data" / model).glob("*.dvc"))
    if pointers:
        dvc(tree, "checkout", "--quiet", *pointers)


class _Child:
    """A child process whose lines go to `say`, and whose standard error is a terminal where ours is."""

    def __init__(self, command: list[str], cwd: Path, say: Say) -> None:
        self.said: list[str] = []
        self._say = say
        self._terminal = sys.stderr.isatty()
        self._errors, theirs = _terminal() if self._terminal else os.pipe()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment({MARK: str(cwd), "PYTHONUNBUFFERED": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)

    def follow(self) -> int:
        """Passes on all that it says; gives its exit status. The child is ended when this is interrupted."""
        assert self._process.stdout
        output = self._process.stdout.fileno()
        rest = {output: b"", self._errors: b""}
        try:
            with selectors.DefaultSelector() as ready:
                for source in rest:
                    ready.register(source, selectors.EVENT_READ)
                while ready.get_map():
                    for key, _ in ready.select():
                        if chunk := _read(key.fd):
                            rest[key.fd] = self._take(rest[key.fd] + chunk, chunk, self._terminal and key.fd != output)
                        else:
                            ready.unregister(key.fd)
            return self._process.wait()
        finally:
            self._process.terminate()
            self._process.wait()
            self._process.stdout.close()
            os.close(self._errors)

    def _take(self, pending: bytes, chunk: bytes, show: bool) -> bytes:
        """Says the whole lines; gives what is left. Moving bars go to the terminal as they are."""
        if show:
            os.write(sys.stderr.fileno(), RUN_CACHE_WARNING.sub(b"", chunk))
        *done, rest = pending.split(b"\n")
        for line in map(_last_state, done):
            self.said.append(line)
            if not NOISE.match(line):
                self._say(line, show)
        return rest


def _terminal() -> tuple[int, int]:
    """A pseudo-terminal as wide as ours: (our end, the child's end)."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, termios.tcgetwinsize(sys.stderr.fileno()))
    return ours, theirs


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # how a pseudo-terminal says that its other end was closed
        return b""


def _last_state(line: bytes) -> str:
    """What a line that was written over and over showed in the end, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.decode(errors="replace").rstrip("\r"))
    return text.rsplit("\r", 1)[-1].rstrip()


def _failure(stage: str, said: list[str]) -> RatchetError:
    """The stage's own error, of the kind that its exit code names, else DVC's."""
    own = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    codes = [int(found[1]) for line in said if (found := re.search(r"exited with (\d+)", line))]
    kind = BY_EXIT_CODE.get(codes[-1], RatchetError) if codes else RatchetError
    if own:
        return kind(own[-1])
    dvc = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    last = next((line for line in reversed(said) if line), "it said nothing")
    return RatchetError(f"Stage {stage} failed: {dvc[0] if dvc else last}")
