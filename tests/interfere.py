"""`ratchet`, interfered with right after one of its functions returned: `python -m tests.interfere POINT ACTION ARGS…`.

POINT is `module:function`; ACTION is `die` (as by kill -9), `interrupt` (as by Ctrl-C) or `promote` (someone else
promotes another candidate).
"""

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any


def die(root: Path) -> None:
    os._exit(9)


def interrupt(root: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, also where tests run in the background
    os.kill(os.getpid(), signal.SIGINT)


def promote(root: Path) -> None:
    from tasks.project.registry import champion, register_and_assign
    from tasks.project.repository import git

    commit = git(root, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "someone else's")
    register_and_assign(root, "digits", commit, champion(root, "digits"))


def main() -> None:
    point, action, *arguments = sys.argv[1:]
    module, name = point.split(":")
    owner = importlib.import_module(module)
    original = getattr(owner, name)

    def interfered(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        setattr(owner, name, original)
        globals()[action](Path.cwd())
        return result

    setattr(owner, name, interfered)
    sys.argv = ["ratchet", *arguments]
    importlib.import_module("flows.cli").main()


if __name__ == "__main__":
    main()
