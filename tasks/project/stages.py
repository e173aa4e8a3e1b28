"""Runs one DVC stage of a model in a workspace, passing on its output line by line."""

import os
import pty
import re
import selectors
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from models.common.errors import DataBlockedError, PublishError, RatchetError, RegistryError, UserError
from tasks.project.repository import WORKSPACE_VARIABLE, dvc, dvc_remote, environment, python

LineHandler = Callable[[str, bool], None]  # (a line of output, whether the terminal has shown it already)
PREREQUISITES = {"train": ("initial_weights",)}  # stages that run with another one, before it
ERROR_BY_EXIT_CODE = {error.exit_code: error for error in (UserError, DataBlockedError, RegistryError, PublishError)}
DVC_HINTS = re.compile(
    r"^(To track the changes|\s*git add|To enable auto staging|\s*dvc config core\.autostage|Use `dvc push`|$"
    r"|(Updating|Generating) lock file|WARNING: Failed to pull run cache|\s*dvc remote add)"
)

RUN_CACHE_WARNING = re.compile(rb"[^\n]*WARNING[^\n]*Failed to pull run cache[^\n]*\n")  # a first run has none yet


def reproduce(tree: Path, stage: str, model: str, on_line: LineHandler) -> bool:
    """`dvc repro` of one stage; False when DVC had its result cached. `on_line` gets each line of output.

    The initial weights are written right before training, in the same process: starting DVC takes a second or two.
    In a terminal the stage's progress bar shows, as its standard error is a terminal too. Raises the RatchetError
    that the stage ended with.
    """
    names = (*PREREQUISITES.get(stage, ()), stage)
    _check_stages(tree, names)
    if stage == "validate" and not dvc_remote(tree):
        _check_out_data(tree, model)
    # the first stage fetches what is missing, also for the later ones; without a remote that option only fails
    fetch = ["--pull"] if stage == "validate" and dvc_remote(tree) else ["--single-item"]
    targets = [f"{name}@{model}" for name in names]
    child = _ChildProcess([python(), "-m", "dvc", "repro", *fetch, *targets], tree, on_line)
    if child.pass_on_output():
        raise _failure(stage, child.lines)
    return any(line.startswith(f"> python -m tasks.{stage} ") for line in child.lines)


def _check_stages(tree: Path, names: Sequence[str]) -> None:
    """UserError where the commit is of a Ratchet that did not have these stages yet."""
    known = yaml.safe_load((tree / "dvc.yaml").read_text())["stages"]
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f"dvc.yaml of this commit has no stage '{missing[0]}', so it was made with an older Ratchet."
            " Retrain from a commit that has the flows/, tasks/, models/ and dvc.yaml of the one that you run"
        )


def _check_out_data(tree: Path, model: str) -> None:
    """Links the model's batches from the cache. RatchetError when it has not all of them."""
    pointers = sorted(str(path.relative_to(tree)) for path in (tree / "data" / model).glob("*.dvc"))
    if pointers:
        dvc(tree, "checkout", "--quiet", *pointers)


class _ChildProcess:
    """A child process whose lines go to `on_line`, and whose standard error is a terminal where this process's is."""

    def __init__(self, command: list[str], cwd: Path, on_line: LineHandler) -> None:
        self.lines: list[str] = []
        self._on_line = on_line
        self._terminal = sys.stderr.isatty()
        self._errors, child_end = _open_pseudo_terminal() if self._terminal else os.pipe()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment({WORKSPACE_VARIABLE: str(cwd), "PYTHONUNBUFFERED": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=child_end,
        )
        os.close(child_end)

    def pass_on_output(self) -> int:
        """Passes on all of its output; gives its exit status. The child is ended when this is interrupted."""
        assert self._process.stdout
        output = self._process.stdout.fileno()
        rest = {output: b"", self._errors: b""}
        try:
            with selectors.DefaultSelector() as selector:
                for source in rest:
                    selector.register(source, selectors.EVENT_READ)
                while selector.get_map():
                    for key, _ in selector.select():
                        if chunk := _read(key.fd):
                            rest[key.fd] = self._pass_on_lines(
                                rest[key.fd] + chunk, chunk, self._terminal and key.fd != output
                            )
                        else:
                            selector.unregister(key.fd)
            return self._process.wait()
        finally:
            self._process.terminate()
            self._process.wait()
            self._process.stdout.close()
            os.close(self._errors)

    def _pass_on_lines(self, pending: bytes, chunk: bytes, show: bool) -> bytes:
        """Passes on the whole lines; gives what is left. Progress bars go to the terminal as they are."""
        if show:
            os.write(sys.stderr.fileno(), RUN_CACHE_WARNING.sub(b"", chunk))
        *done, rest = pending.split(b"\n")
        for line in map(_final_text, done):
            self.lines.append(line)
            if not DVC_HINTS.match(line):
                self._on_line(line, show)
        return rest


def _open_pseudo_terminal() -> tuple[int, int]:
    """A pseudo-terminal as wide as this terminal: (own end, the child's end)."""
    own_end, child_end = pty.openpty()
    termios.tcsetwinsize(child_end, termios.tcgetwinsize(sys.stderr.fileno()))
    return own_end, child_end


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # how a pseudo-terminal signals that its other end was closed
        return b""


def _final_text(line: bytes) -> str:
    """The last text of a line that was overwritten with carriage returns, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.decode(errors="replace").rstrip("\r"))
    return text.rsplit("\r", 1)[-1].rstrip()


def _failure(stage: str, lines: list[str]) -> RatchetError:
    """The stage's own error, of the kind that its exit code names, else DVC's."""
    messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    codes = [int(match[1]) for line in lines if (match := re.search(r"exited with (\d+)", line))]
    error_class = ERROR_BY_EXIT_CODE.get(codes[-1], RatchetError) if codes else RatchetError
    if messages:
        return error_class(messages[-1])
    dvc_messages = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    last = next((line for line in reversed(lines) if line), "no output")
    return RatchetError(f"Stage {stage} failed: {dvc_messages[0] if dvc_messages else last}")
