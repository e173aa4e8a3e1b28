"""A shared project made small: a clone, its bare git remote and its DVC remote, copied as one for each test."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.serve import free_port
from tests.conftest import CODE, git
from tests.story import wait_for

PARAMS = """\
models:
  digits:
    kind: image_classification
    data: {image_size: 8, splits: {val: 0.1, test: 0.3}, max_drift: 5}
    train: {network: small_cnn, width: 8, epochs: 12, batch_size: 32, learning_rate: 0.01, warmup_epochs: 0.5}
    gate: {metric: accuracy, resamples: 200}
    schedule: {cron: '0 3 * * *'}
"""


@dataclass(frozen=True)
class World:
    """`folder`/project is a clone of `folder`/origin.git; its bytes go to `folder`/bytes."""

    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    @staticmethod
    def make(folder: Path, project: Path, params: str = PARAMS) -> "World":
        """Shares a copy of `project`, with these params."""
        world = World(folder)
        shutil.copytree(project, world.project, symlinks=True)
        (world.project / "params.yaml").write_text(params)
        remote = f"    remote = store\n['remote \"store\"']\n    url = {folder / 'bytes'}\n"
        (world.project / ".dvc/config").write_text(f"[core]\n    analytics = false\n{remote}")
        git(world.project, "commit", "--quiet", "--all", "--message=small, and shared")
        git(folder, "clone", "--quiet", "--bare", str(world.project), str(world.origin))
        git(world.project, "remote", "add", "origin", str(world.origin))
        return world

    def copy(self, folder: Path) -> "World":
        """The same world elsewhere; its clone's local settings point at the copied remotes."""
        shutil.copytree(self.folder, folder, symlinks=True)
        copy = World(folder)
        git(copy.project, "remote", "set-url", "origin", str(copy.origin))
        (copy.project / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {folder / 'bytes'}\n")
        return copy

    def clone(self, folder: Path) -> "World":
        """A clone of the same remotes, as another person has it: it has not fetched anything since."""
        copy = World(folder)
        git(self.folder, "clone", "--quiet", str(self.origin), str(copy.project))
        (copy.project / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {self.folder / 'bytes'}\n")
        return copy

    def start(self, *arguments: str, module: str = "flows.cli") -> "subprocess.Popen[str]":
        """`ratchet ARGUMENTS` with the project's own code."""
        env = os.environ | {"PYTHONPATH": f"{self.project}{os.pathsep}{CODE}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.project, env=env, stdout=pipe, stderr=pipe, text=True)

    def ratchet(self, *arguments: str, module: str = "flows.cli") -> "CommandResult":
        """Runs it to its end."""
        return CommandResult.of(self.start(*arguments, module=module))

    def edit(self, old: str, new: str) -> None:
        """Changes params.yaml and commits."""
        path = self.project / "params.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        git(self.project, "commit", "--quiet", "--all", f"--message={new}")

    def status(self) -> dict[str, Any]:
        """The first model's row of `ratchet status`."""
        row: dict[str, Any] = self.ratchet("status", "--json").json["models"][0]
        return row


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @staticmethod
    def of(process: "subprocess.Popen[str]") -> "CommandResult":
        out, err = process.communicate(timeout=280)
        return CommandResult(process.returncode, out, err)

    @property
    def json(self) -> dict[str, Any]:
        assert self.out, self.err
        answer: dict[str, Any] = json.loads(self.out)
        return answer

    @property
    def error(self) -> str:
        """The one line that a refusal is."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err, self.err
        return lines[0]


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """A Prefect server on a free port, for as long as it is needed; gives its URL."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    # its pages ask the default port, whatever --port says, without this variable
    env = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api"}
    log = (home.parent / "prefect-server.log").open("w")
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()
