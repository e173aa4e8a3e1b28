"""A run's worktree: shares the cache, leaves the user's files alone, and is gone afterwards, killed or not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.common.errors import UserError
from tasks.project.repository import dvc, dvc_remote, dvc_setting
from tasks.project.stages import reproduce
from tasks.project.workspace import workspace
from tests.conftest import git


def test_a_workspace_is_another_folder_and_the_users_files_stay_as_they_are(project: Path) -> None:
    (project / "params.yaml").write_text("half an edit")
    commit = git(project, "rev-parse", "HEAD")
    with workspace(project, "digits", commit) as tree:
        assert (tree / "params.yaml").read_text().startswith("models:")
        (tree / "params.yaml").write_text("changed by the run")
        assert Path(str(dvc_setting(tree, "cache", "dir"))) == project / ".dvc/cache"
    assert (project / "params.yaml").read_text() == "half an edit"
    assert not tree.exists()
    assert git(project, "rev-parse", "HEAD") == commit
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_local_dvc_settings_and_a_cache_elsewhere_are_kept(project: Path, tmp_path: Path) -> None:
    (project / ".dvc/config.local").write_text(
        f"[core]\n    remote = mine\n['remote \"mine\"']\n    url = {tmp_path}\n[cache]\n    dir = ../../elsewhere\n"
    )
    with workspace(project, "digits", "HEAD") as tree:
        assert dvc_remote(tree) == "mine"
        assert Path(str(dvc_setting(tree, "cache", "dir"))) == tmp_path / "elsewhere"
        assert Path(dvc(tree, "cache", "dir")) == tmp_path / "elsewhere"


def test_two_models_have_workspaces_at_once_and_one_model_only_one(project: Path) -> None:
    with workspace(project, "digits", "HEAD") as first, workspace(project, "letters", "HEAD") as second:
        assert first != second
        with pytest.raises(UserError, match="digits is being retrained already"), workspace(project, "digits", "HEAD"):
            pytest.fail("a second run of the same model was let in")


def test_what_a_killed_run_left_is_removed_with_the_processes_it_started(project: Path) -> None:
    code = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from tasks.project.repository import WORKSPACE_VARIABLE\n"
        "from tasks.project.workspace import workspace\n"
        "with workspace(Path.cwd(), 'digits', 'HEAD') as tree:\n"
        "    env = {**os.environ, WORKSPACE_VARIABLE: str(tree)}\n"
        "    orphan = subprocess.Popen(['sleep', '60'], env=env, stdout=-3, stderr=-3)\n"
        "    print(orphan.pid, tree, flush=True)\n"
        "    os._exit(9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    orphan, stale = killed.stdout.split()
    assert Path(stale).exists()
    with workspace(project, "digits", "HEAD"):
        assert not Path(stale).exists()
        assert _gone(int(orphan))


def test_a_stage_says_its_lines_as_they_come_and_fails_with_its_own_error(project: Path) -> None:
    (project / "data/digits").mkdir(parents=True)
    lines: list[str] = []
    with pytest.raises(UserError, match="digits has no data yet"):
        reproduce(project, "validate", "digits", lambda line, _: lines.append(line))
    assert "> python -m tasks.validate digits" in lines


def _gone(pid: int) -> bool:
    """Whether a process ended; one that nobody waited for is a zombie."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_commit_of_an_older_ratchet_is_refused_in_one_line(project: Path) -> None:
    stages = project / "dvc.yaml"
    stages.write_text(stages.read_text().replace("\n  initial_weights:", "\n  another:"))
    with pytest.raises(UserError, match="has no stage 'initial_weights', so it was made with an older Ratchet"):
        reproduce(project, "train", "digits", lambda _line, _shown: None)
