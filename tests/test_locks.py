"""Locks and temporary folders between processes: what a killed one held is free, what a living one holds is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from models.common.errors import UserError
from tasks.project.locks import holder as find_holder
from tasks.project.locks import lock, lock_or_refuse, temporary_folder
from tests.conftest import CODE

HOLDING = """
import sys, time
from pathlib import Path
from tasks.project.locks import lock, temporary_folder
home = Path(sys.argv[1])
with lock(home, "retrain/digits"), temporary_folder(home / "adding") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(home: Path) -> tuple["subprocess.Popen[str]", Path]:
    """Another process that holds a lock and a temporary folder."""
    command = [sys.executable, "-c", HOLDING, str(home)]
    process = subprocess.Popen(command, cwd=CODE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def kill(process: "subprocess.Popen[Any]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_lock_that_is_held_names_its_holder_and_is_free_when_that_was_killed(tmp_path: Path) -> None:
    other, _ = holder(tmp_path)
    message = rf"digits is busy \(process {other.pid}\)\. Wait for it, or stop it"
    with pytest.raises(UserError, match=message), lock_or_refuse(tmp_path, "retrain/digits", "digits is busy"):
        pytest.fail("two processes hold one lock")
    kill(other)
    with lock_or_refuse(tmp_path, "retrain/digits", "digits is busy"), lock(tmp_path, "add/digits"):
        assert find_holder(tmp_path, "retrain/digits") == os.getpid()
    assert find_holder(tmp_path, "retrain/digits") is None


LOOKING = """
import sys
from pathlib import Path
from tasks.project.locks import holder
while True:
    holder(Path(sys.argv[1]), "up")
"""


def test_who_looks_for_the_holder_never_keeps_another_process_from_holding(tmp_path: Path) -> None:
    looking = subprocess.Popen([sys.executable, "-c", LOOKING, str(tmp_path)], cwd=CODE)
    try:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with lock_or_refuse(tmp_path, "up", "taken for held"):
                assert looking.poll() is None
    finally:
        kill(looking)


def test_a_folder_in_use_stays_and_one_whose_process_was_killed_goes(tmp_path: Path) -> None:
    other, other_folder = holder(tmp_path)
    with temporary_folder(tmp_path / "adding") as own_folder:
        assert own_folder != other_folder
        assert {path.name for path in other_folder.parent.iterdir()} == {own_folder.name, other_folder.name}
    kill(other)
    with temporary_folder(tmp_path / "adding"):
        assert not other_folder.exists()
    assert list((tmp_path / "adding").iterdir()) == []


def test_folders_of_another_prefix_and_files_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / ".packaging-notes").touch()
    (tmp_path / ".packaging-killed").mkdir()
    with temporary_folder(tmp_path, ".packaging-"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"served", ".packaging-notes"}
