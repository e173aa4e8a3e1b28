"""Warm processes: a stage runs in one as it runs without, and nothing of them is left, however their owner ends."""

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.project.repository import WARM_VARIABLE, WORKSPACE_VARIABLE, dvc, environment, python
from tasks.project.stages import reproduce
from tasks.project.warm import DVC, RUN, SERVICE, TRAINING, VALIDATION, Libraries, warm_processes
from tasks.project.workspace import workspace
from tests.conftest import CODE
from tests.world import World

TELL = """
import os, sys
print(os.getcwd(), sys.argv[1:], os.environ["WHO"], "torch" in sys.modules, os.getppid())
print("to stderr", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Warm processes for this file; those of processes that it starts, too."""
    home = tmp_path_factory.mktemp("warm")
    with warm_processes(home, for_one_run=True) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield home


def tell(folder: Path, module: str = "tasks.train", code: str = TELL) -> Path:
    """A project whose module only tells what it sees."""
    path = folder / f"{module.replace('.', '/')}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return folder


def run(folder: Path, *arguments: str, who: str = "me", **variables: str) -> "subprocess.CompletedProcess[str]":
    env = environment({"WHO": who, **variables})
    env.pop("PYTHONPATH", None)
    return subprocess.run(
        [python(), *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_module_of_the_folder_runs_with_its_arguments_environment_streams_and_exit_code(
    warm: Path, tmp_path: Path
) -> None:
    done = run(tell(tmp_path), "-m", "tasks.train", "7", "b c", who="you")
    folder, rest = done.stdout.split(" ", 1)
    assert (Path(folder), done.returncode, done.stderr) == (tmp_path, 7, "to stderr\n")
    assert rest.startswith("['7', 'b c'] you True ")


def test_what_is_not_served_and_what_was_started_otherwise_runs_in_the_real_python(warm: Path, tmp_path: Path) -> None:
    tell(tmp_path, "tasks.other")
    assert " False " in run(tmp_path, "-m", "tasks.other", "0").stdout
    assert " False " in run(tell(tmp_path), "-m", "tasks.train", "0", OMP_NUM_THREADS="7").stdout  # read as torch loads
    assert run(tmp_path, "-c", "import sys; sys.exit(3)").returncode == 3


def test_told_to_it_takes_no_code_of_the_folder_that_it_runs_in(warm: Path, tmp_path: Path) -> None:
    tell(tmp_path / "here", code="print('here')")
    tell(tmp_path / "there", code="print('there')")
    there = {"PYTHONPATH": str(tmp_path / "there")}
    env = environment(there)
    for options, expected in (([], "here\n"), (["-P"], "there\n")):
        command = [python(), *options, "-m", "tasks.train"]
        done = subprocess.run(command, cwd=tmp_path / "here", env=env, capture_output=True, text=True, check=True)
        assert done.stdout == expected


def test_a_run_under_up_is_carried_out_by_the_code_of_its_commit(tmp_path: Path) -> None:
    from flows.up.runs import log_file, start_run

    for name in ("root", "code"):
        (tmp_path / name / "flows/up").mkdir(parents=True)
        for package in ("flows", "flows/up"):
            (tmp_path / name / package / "__init__.py").touch()
        (tmp_path / name / "flows/up/run.py").write_text(f"print('{name}', flush=True)")
    process = start_run(tmp_path / "root", tmp_path / "code", "a-run", "digits", (0,), {})
    wait_for(lambda: not process.is_alive())
    process.stop()
    assert log_file(tmp_path / "root", "a-run").read_text() == "code\n"


def test_an_exception_and_a_signal_end_it_as_they_end_python(warm: Path, tmp_path: Path) -> None:
    failed = run(tell(tmp_path, code="raise ValueError('of its own')"), "-m", "tasks.train", "0")
    assert (failed.returncode, failed.stderr.splitlines()[-1]) == (1, "ValueError: of its own")
    killed = run(tell(tmp_path, code="import os; os.kill(os.getpid(), 9)"), "-m", "tasks.train", "0")
    assert killed.returncode == -signal.SIGKILL


def test_ctrl_c_reaches_it(warm: Path, tmp_path: Path) -> None:
    code = "import time, sys\ntry:\n print(1, flush=True); time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(130)"
    process = start(tell(tmp_path, code=code))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def start(folder: Path, **variables: str) -> "subprocess.Popen[str]":
    """The module `tasks.train` of a folder, once it has said so."""
    command = [python(), "-m", "tasks.train"]
    process = subprocess.Popen(command, cwd=folder, env=environment(variables), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline()
    return process


SLEEPS = "import os, time; print(os.getpid(), flush=True); open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


def test_a_killed_client_takes_along_what_it_began(warm: Path, tmp_path: Path) -> None:
    process = start(tell(tmp_path, code=SLEEPS))
    pid = int(wait_for(lambda: (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""))
    process.kill()
    process.communicate()
    wait_for(lambda: not is_alive(pid))


def test_what_a_killed_run_left_running_in_a_warm_process_is_ended_with_its_worktree(warm: Path, project: Path) -> None:
    with workspace(project, "digits", "HEAD") as tree:
        process = start(tell(tree, code=SLEEPS), **{WORKSPACE_VARIABLE: str(tree)})
        pid = int(wait_for(lambda: (tree / "pid").read_text() if (tree / "pid").exists() else ""))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not is_alive(pid))


def test_stages_run_in_them_with_their_one_line_error_and_are_dvc_stages_still(
    warm: Path, project: Path, digits: Path
) -> None:
    lines: list[str] = []
    (project / "data/digits").mkdir(parents=True)
    with pytest.raises(Exception, match="digits has no data yet"):
        reproduce(project, "validate", "digits", lambda line, _: lines.append(line))
    env = os.environ | {"PYTHONPATH": str(project)}
    subprocess.run([sys.executable, "-m", "flows.cli", "add", "digits", str(digits)], cwd=project, env=env, check=True)
    assert reproduce(project, "validate", "digits", lambda line, _: lines.append(line))
    assert [line for line in lines if line.startswith("digits: 18 checks")]
    assert not reproduce(project, "validate", "digits", lambda line, _: None)  # DVC's cache
    assert dvc(project, "status", "validate@digits") == "Data and pipelines are up to date."


def test_an_owner_that_was_killed_leaves_neither_processes_nor_folder(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from tasks.project.warm import warm_processes\n"
        "with warm_processes(Path.cwd(), for_one_run=True) as variables:\n"
        "    print(*variables.values(), flush=True); time.sleep(600)"
    )
    env = environment({"PYTHONPATH": str(CODE)})
    env.pop(WARM_VARIABLE, None)
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    folder = Path(owner.stdout.readline().strip())
    assert wait_for(lambda: processes_of(folder))
    owner.kill()
    owner.communicate()
    wait_for(lambda: not processes_of(folder) and not folder.exists(), 120)  # what is importing sees it a little later


def test_they_are_started_once(warm: Path, tmp_path: Path) -> None:
    with warm_processes(tmp_path) as variables:
        assert variables == {}
    assert list(tmp_path.iterdir()) == []


def test_a_whole_run_uses_them_and_counts_its_seconds_from_the_shell(
    project: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WARM_VARIABLE, raising=False)
    (tmp_path / "world").mkdir()
    world = World.make(tmp_path / "world", project)
    assert world.ratchet("add", "digits", str(digits)).code == 0
    start = time.monotonic()
    answer = world.ratchet("retrain", "digits", "--json")
    wall = time.monotonic() - start
    assert answer.json["state"] == "PROMOTED", answer.err
    assert 0 <= wall - answer.json["seconds"] < 1 + 0.1 * wall  # what is left is the interpreter's end
    assert [name for name, _ in answer.json["steps"]][2:5] == ["validate", "train", "evaluate"]
    log = (world.project / ".ratchet/logs/warm.log").read_text()
    assert "is warm for dvc" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("libraries", [RUN, DVC, VALIDATION, SERVICE, TRAINING], ids=lambda each: each.serves[0])
def test_loading_starts_no_threads_and_asks_for_no_gpu_so_that_forks_are_as_good_as_new(libraries: Libraries) -> None:
    """Of OpenBLAS alone there may be threads: it ends them before a fork and starts them after it."""
    probe = (
        "import importlib, sys; from pathlib import Path\n"
        f"for name in {libraries.to_load(False)!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: print(name)\n"
        "print([path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')])\n"
        "torch = sys.modules.get('torch'); assert not torch or not torch.cuda.is_initialized()"
    )
    env = environment({"OPENBLAS_NUM_THREADS": "1", "GX_ANALYTICS_ENABLED": "false"})
    done = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=True)
    *missing, threads = done.stdout.splitlines()
    assert set(missing) <= {"dvc_s3", "dvc_ssh"}  # what nobody asked for here
    assert set(ast.literal_eval(threads)) <= {"python", "python3", "jemalloc_bg_thd"}
    assert sum(name.startswith("python") for name in ast.literal_eval(threads)) == 1


def processes_of(folder: Path) -> list[str]:
    """Warm processes of a folder that are alive."""
    own = [path for path in Path("/proc").glob("[0-9]*") if is_alive(int(path.name))]
    return [path.name for path in own if str(folder).encode() in _command(path).split(b"\0")]


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(there: Callable[[], object], seconds: float = 30.0) -> str:
    deadline = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(found)
