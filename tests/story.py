"""A user's story, run through the real command line, in a clone of its own with remotes of its own.

`make demo` and benchmarks/cifar10.py are such stories: they call `ratchet` as a person would and record its answers.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from tasks.project.repository import environment

CODE = Path(__file__).resolve().parent.parent


@dataclass
class Story:
    """A clone of this repository in `folder`/project, and what has happened in it so far."""

    folder: Path
    console: Console = field(default_factory=Console)
    steps: list[tuple[str, str, float]] = field(default_factory=list)  # what was done, result, seconds

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def environment(self) -> dict[str, str]:
        here = {"PYTHONPATH": str(self.project), "PREFECT_HOME": str(self.folder / "prefect")}
        return environment(here)

    def begin(self, models: dict[str, Any] | None = None) -> None:
        """A fresh clone of the last commit, with a bare git remote and a DVC remote of its own beside it.

        `models`: sections that its params.yaml has to have; those that are there already stay as they are.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._call("git", "clone", "--quiet", str(CODE), str(self.project), cwd=CODE)
        self._call("git", "clone", "--quiet", "--bare", str(CODE), str(self.folder / "remote.git"), cwd=CODE)
        self._call("git", "remote", "set-url", "origin", str(self.folder / "remote.git"))
        self._call("git", "checkout", "--quiet", "-B", "main")
        self._call("git", "push", "--quiet", "--force", "--set-upstream", "origin", "main")
        self._call("git", "config", "user.name", "Ratchet demo")
        self._call("git", "config", "user.email", "demo@example.org")
        self._call("dvc", "remote", "add", "--quiet", "--default", "here", str(self.folder / "dvc-remote"))
        self._add_sections(models or {})
        self._call("git", "commit", "--quiet", "--all", "--message", "Keep data in a folder beside the clone")
        self._call("git", "push", "--quiet")

    def _add_sections(self, models: dict[str, Any]) -> None:
        path = self.project / "params.yaml"
        text = path.read_text()
        new = {name: section for name, section in models.items() if name not in yaml.safe_load(text)["models"]}
        if new:
            lines = yaml.safe_dump(new, sort_keys=False, default_flow_style=None).splitlines()
            path.write_text(text + "\n" + "".join(f"  {line}\n" for line in lines))

    def ratchet(self, *arguments: str) -> dict[str, Any]:
        """Runs `ratchet ARGUMENTS --json`, progress on the screen; its answer with `exit_code` and `seconds`."""
        self.console.print(f"\n[bold]$ ratchet {' '.join(arguments)}[/bold]")
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments, "--json"],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
        return answer | {"exit_code": done.returncode, "seconds": time.perf_counter() - start}

    def record(self, what: str, result: str, seconds: float) -> None:
        """Ends a step: one row of the closing table."""
        self.steps.append((what, result, seconds))
        self.console.print(f"[green]→ {result}[/green]  [dim]({seconds:.0f} s)[/dim]")

    def table(self, title: str) -> Table:
        """What happened, step by step."""
        table = Table(title=title, title_justify="left")
        for heading in ("what was done", "result"):
            table.add_column(heading)
        table.add_column("seconds", justify="right")
        for what, result, seconds in self.steps:
            table.add_row(what, result, f"{seconds:.0f}")
        return table

    def _call(self, *command: str, cwd: Path | None = None) -> None:
        subprocess.run(command, cwd=cwd or self.project, env=self.environment, check=True)


def wait_for(url: str, seconds: float) -> None:
    """Returns once `url` answers with success; TimeoutError when it has not within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise TimeoutError(f"{url} did not answer within {seconds:.0f} s")
