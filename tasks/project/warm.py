"""Warm processes: they hold the libraries of the stages, so that a stage is not longer in importing than in working.

A stage stays `python -m tasks.<verb> MODEL`, as dvc.yaml has it. While processes are warm, a `python` of ours comes
first on the PATH of DVC, which hands such a command, with its folder, environment and standard streams, to a process
that has imported Great Expectations or torch already (warm_server.py), and runs everything else as before
(warm_client.py). The code that runs is that of the worktree; what is warm is other people's.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tasks.project.repository import WARM_VARIABLE, environment, warm_folder

MAX_SOCKET_FOLDER = 75  # bytes; Linux allows 107 for the path of a socket


@dataclass(frozen=True)
class Libraries:
    """What is loaded, and the commands that then run faster. A module that is missing here costs time and no more."""

    serves: tuple[str, ...]  # modules run with -m, or names of scripts
    loads: tuple[str, ...]
    loads_for_some: tuple[str, ...] = ()  # used by some kinds or remotes: worth it for processes that stay

    def to_load(self, for_one_run: bool) -> tuple[str, ...]:
        return self.loads if for_one_run else self.loads + self.loads_for_some


TABLES = ("pandas", "pyarrow.dataset", "pyarrow.parquet", "pydantic.main", "pydantic.types", "yaml", "PIL.ImageOps")
DVC = Libraries(
    serves=("dvc",),
    loads=(
        *("dvc.cli.parser", "dvc.repo", "dvc.repo.graph", "dvc.repo.index", "dvc.repo.stage", "dvc.repo.artifacts"),
        *("dvc.repo.metrics", "dvc.repo.params", "dvc.repo.plots", "dvc.repo.datasets", "dvc.repo.brancher"),
        *("dvc.repo.open_repo", "dvc.repo.worktree", "dvc.repo.experiments", "dvc.scm", "dvc.lock", "dvc.rwlock"),
        *("dvc.data_cloud", "dvc.compare", "dvc.cachemgr", "dvc.dirs", "dvc.utils.strictyaml", "dvc._debug"),
        *("dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.index.push", "dvc_data.index.collect"),
        *("dvc_data.hashfile.status", "dvc_data.hashfile.db.local", "dvc_data.hashfile._progress", "dvc_render"),
        *("networkx", "scmrepo.git", "ruamel.yaml", "configobj", "fsspec.implementations.memory", "unittest"),
    ),
    loads_for_some=("dvc_http", "dvc_s3", "dvc_ssh"),
)
VALIDATION = Libraries(
    serves=("tasks.validate",),
    loads=(
        *TABLES,
        *("great_expectations", "great_expectations.render.renderer", "great_expectations.render.view", "jinja2.ext"),
    ),
    loads_for_some=("soundfile", "soxr"),
)
TRAINING = Libraries(
    serves=("tasks.initial_weights", "tasks.train", "tasks.evaluate"),
    loads=(*TABLES, "torch", "torch._dynamo", "torch.utils.tensorboard", "torch.onnx", "onnx", "rich.progress"),
    loads_for_some=("torchvision", "torchaudio", "soundfile", "soxr", "pycocotools.mask"),
)
SERVICE = Libraries(  # of the smoke test
    serves=("build.py", "bentoml", "_bentoml_impl.worker.service"),
    loads=(
        *("bentoml", "bentoml_cli.serve", "_bentoml_impl.server.serving", "_bentoml_impl.worker.service", "uvicorn"),
        *("numpy", "PIL.ImageOps", "opentelemetry.sdk.trace", "packaging.metadata", "pip_requirements_parser"),
    ),
)
RUN = Libraries(
    serves=("flows.up.run",),
    loads=(
        *TABLES,
        *("scipy.stats", "prefect.flow_engine", "prefect.task_engine", "prefect.artifacts", "prefect.runtime.flow_run"),
        *("prefect.client.orchestration", "prefect.events.worker", "prefect.blocks.notifications", "ruamel.yaml"),
    ),
)
# Side by side; in each one after another, as a run asks for them.
PLANS_FOR_ONE_RUN = ((VALIDATION, SERVICE), (DVC, TRAINING))
PLANS = ((RUN, VALIDATION, SERVICE), (DVC, TRAINING))


@contextmanager
def warm_processes(home: Path, for_one_run: bool = False) -> Iterator[dict[str, str]]:
    """Starts them, and gives the environment variables by which processes find them; they end with the block.

    `for_one_run`: only with what every kind of model uses. Nothing is started, and nothing given, where this process
    was given some already, or where they cannot be had.
    """
    with ExitStack() as stack:
        try:
            folder = None if warm_folder() or not hasattr(os, "pidfd_open") else _start(stack, home, for_one_run)
        except OSError:  # no room for the sockets, say: stages then import for themselves
            folder = None
        yield {WARM_VARIABLE: str(folder)} if folder else {}


def _start(stack: ExitStack, home: Path, for_one_run: bool) -> Path | None:
    folder = _folder()
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    if not _write_python(folder):
        return None
    log = stack.enter_context(_log(home).open("ab"))
    for plan in PLANS_FOR_ONE_RUN if for_one_run else PLANS:
        stack.enter_context(_process(folder, plan, for_one_run, log.fileno()))
    return folder


def _folder() -> Path:
    """A folder with a short path, which nobody else can enter."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-"))
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="ratchet-", dir="/tmp"))


def _log(home: Path) -> Path:
    path = home / "logs" / "warm.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_python(folder: Path) -> bool:
    """Writes the `python` for PATH; False where it could not be run there."""
    client = Path(__file__).with_name("warm_client.py")
    command = shlex.join([sys.executable, "-I", "-S", str(client), str(folder)])
    path = folder / "bin" / "python"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o700)
    return os.access(path, os.X_OK)


def _environment() -> dict[str, str]:
    """That of a stage, but for where our code is found: a warm process must not find any."""
    variables = environment({"PYTHONUNBUFFERED": "1"})
    return {name: value for name, value in variables.items() if name != "PYTHONPATH"}


def _listener(folder: Path, libraries: Libraries) -> socket.socket:
    """A socket that takes requests from now on, whenever its process will be ready, under the name of each module."""
    listener = socket.socket(socket.AF_UNIX)
    first, *others = libraries.serves
    listener.bind(str(folder / first))
    listener.listen(64)
    for name in others:
        (folder / name).symlink_to(first)
    return listener


@contextmanager
def _process(folder: Path, plan: tuple[Libraries, ...], for_one_run: bool, log: int) -> Iterator[None]:
    """The warm processes of one plan; at the end of the block they end, and with them what still runs in them."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listener(folder, libraries)) for libraries in plan]
        groups = [
            {"serves": libraries.serves, "loads": libraries.to_load(for_one_run), "listener": listener.fileno()}
            for listener, libraries in zip(listeners, plan, strict=True)
        ]
        server = Path(__file__).with_name("warm_server.py")
        process = subprocess.Popen(
            [sys.executable, "-P", str(server), str(folder), json.dumps(groups)],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno() for listener in listeners],
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
