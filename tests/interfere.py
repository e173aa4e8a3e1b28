"""`ratchet`, interfered with right after one of its functions returned: `python -m tests.interfere POINT ACTION ARGS…`.

POINT is `module:function`; ACTION is `die` (as by kill -9), `interrupt` (as by Ctrl-C), `promote` (someone else
promotes another candidate), `revert` (someone takes the newest commit back) or `unplug` (the git remote goes away).
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

    current = champion(root, "digits")
    tree = f"{current.commit}^{{tree}}" if current else "HEAD^{tree}"
    register_and_assign(root, "digits", git(root, "commit-tree", tree, "-p", "HEAD", "-m", "someone else's"), current)


def revert(root: Path) -> None:
    from tasks.project.repository import git

    git(root, "revert", "--no-edit", "HEAD")


def unplug(root: Path) -> None:
    from tasks.project.repository import git

    origin = Path(git(root, "remote", "get-url", "origin"))
    origin.rename(origin.with_suffix(".away"))


def main() -> None:
    point, action, *arguments = sys.argv[1:]
    prepare(point, action)
    sys.argv = ["ratchet", *arguments]
    importlib.import_module("flows.cli").main()


def prepare(point: str, action: str) -> None:
    """From now on the function at `point` is interfered with, once."""
    module, name = point.split(":")
    owner = importlib.import_module(module)
    original = getattr(owner, name)

    def interfered(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        setattr(owner, name, original)
        globals()[action](Path.cwd())
        return result

    setattr(owner, name, interfered)


if __name__ == "__main__":
    main()
