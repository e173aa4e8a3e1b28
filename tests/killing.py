"""`ratchet`, killed at one of its writes: `python -m tests.killing ARGS…`, at KILL_AT, or watched to list all points.

The points are found and not listed by hand: every child process that does more than read, and every change of a file
in the project that this process makes itself. So a new write is covered from the day it is written.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

GIT_READS = {
    *("cat-file", "config", "diff", "for-each-ref", "log", "ls-files", "ls-remote", "ls-tree", "merge-base", "remote"),
    *("rev-list", "rev-parse", "show", "status", "symbolic-ref", "var"),
}
FILE_WRITES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "shutil.rmtree"}
# locks end with their process, git's own files are git's, a run's own folders go as a whole
NOT_COUNTED = (
    "/locks/",
    "__pycache__",
    "/.git/",
    "/.ratchet/work/",
    "/.packaging-",
    "/.unpacking-",
    "/.ratchet/adding/",
)
MOMENTS = ("before", "during", "alone")  # of a child: before it starts; half-way, all of us; half-way, only its parent


@dataclass(frozen=True)
class Point:
    """One write: the `count`-th time that `label` happens, which a test may spell as a pattern (`git push in *`).

    seconds: how long that child process took; 0: a file.
    """

    label: str
    count: int
    seconds: float = 0.0


def points(listing: Path) -> list[tuple[Point, str]]:
    """What a run with KILL_AT=list:`listing` found: every point with each moment at which it can be killed."""
    found = [Point(**json.loads(line)) for line in listing.read_text().splitlines()]
    return [(point, moment) for point in found for moment in (MOMENTS if point.seconds else MOMENTS[:1])]


def spelled(point: Point, moment: str) -> str:
    """The value of KILL_AT."""
    return json.dumps([asdict(point), moment])


class _Watch:
    """Counts the writes of this process; kills at the one it was told, or lists them."""

    def __init__(self, told: str) -> None:
        self._listing = Path(told.removeprefix("list:")) if told.startswith("list:") else None
        self._counts: Counter[str] = Counter()
        self._streak: set[str] = set()  # what one function has written to since it began
        self._function = ""
        self._busy = False
        self._matches = 0  # of the point's label
        if not self._listing:
            point, self._moment = json.loads(told)
            self._point = Point(**point)

    def is_reached(self, label: str) -> bool:
        self._counts[label] += 1
        if self._listing or not fnmatchcase(label, self._point.label):
            return False
        self._matches += 1
        return self._matches == self._point.count

    def note(self, label: str, seconds: float) -> None:
        if self._listing:
            line = json.dumps(asdict(Point(label, self._counts[label], seconds)))
            with self._listing.open("a") as file:
                file.write(line + "\n")

    def file_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook. A function that writes file after file in the same way is one point."""
        if self._busy or not _writes(event, arguments):
            return
        self._busy = True
        function = _caller()
        if function != self._function:
            self._function, self._streak = function, set()
        if event not in self._streak:
            self._streak.add(event)
            label = f"{event} in {function}"
            if self.is_reached(label):
                os.kill(os.getpid(), signal.SIGKILL)
            self.note(label, 0.0)
        self._busy = False

    def child(self, process: "_Process", command: list[str], start: Any) -> None:
        """Starts a child process, and kills before it or while it runs."""
        label = f"{_spelled_command(command)} in {_caller()}"
        if not _changes_something(command) or label == self._function:  # the same again: `git mktag` for each tag
            start()
            return
        self._function = label
        reached = self.is_reached(label)
        if reached and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        process.label, process.began = label, time.monotonic()
        start()
        if reached:
            time.sleep(self._point.seconds / 2)
            if self._moment == "during":
                _kill_descendants()
            os.kill(os.getpid(), signal.SIGKILL)


class _Process(subprocess.Popen[Any]):
    """A Popen that a watch hears of."""

    watch: ClassVar[_Watch]
    label = ""
    began = 0.0

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        command = [args] if isinstance(args, str) else [str(word) for word in args]
        self.watch.child(self, command, lambda: super(_Process, self).__init__(args, *rest, **options))

    def _handle_exitstatus(self, *arguments: Any, **options: Any) -> None:
        super()._handle_exitstatus(*arguments, **options)  # type: ignore[misc]
        if self.label:
            self.watch.note(self.label, max(time.monotonic() - self.began, 0.001))
            self.label = ""


def _changes_something(command: list[str]) -> bool:
    return not (command[0].endswith("git") and next(_words(command[1:]), "") in GIT_READS)


def _words(arguments: list[str]) -> Iterator[str]:
    """Without options, and without the value of `-c`."""
    rest = iter(arguments)
    for word in rest:
        if word == "-c":
            next(rest)
        elif not word.startswith("-"):
            yield word


def _spelled_command(command: list[str]) -> str:
    """`git push`, `python dvc repro train@digits`, `dvc add, exp save`: without what differs from run to run."""
    if command[0].endswith("git"):
        return "git " + next(_words(command[1:]), "")
    if command[1:2] == ["-c"] and "dvc.cli" in command[2]:  # with its commands as JSON
        return "dvc " + ", ".join(" ".join(_verbs(each[:2])) for each in json.loads(command[3]))
    words = _verbs(command[1:])
    return f"{Path(command[0]).name} {' '.join(words[:4])}"


def _verbs(words: list[str]) -> list[str]:
    """Without options, paths and JSON."""
    return [word for word in words if not word.startswith(("-", "[", "{")) and "/" not in word]


def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        _path, _, flags = arguments
        if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return False
    elif event not in FILE_WRITES:
        return False
    paths = [str(path) for path in arguments[: 2 if event in ("os.rename", "os.symlink", "os.link") else 1]]
    return any(str(Path.cwd()) in path and not any(part in path for part in NOT_COUNTED) for path in paths)


def _caller() -> str:
    """The innermost function of ours that is being carried out."""
    frame: FrameType | None = sys._getframe(2)
    while frame:
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] in {"flows", "tasks", "models"} and module != "tasks.project.repository":
            return f"{module}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "?"


def _kill_descendants() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()


def main() -> None:
    _Process.watch = _Watch(os.environ.pop("KILL_AT"))
    sys.argv = ["ratchet", *sys.argv[1:]]
    subprocess.Popen = _Process  # type: ignore[misc]
    sys.addaudithook(_Process.watch.file_event)
    import flows.cli

    flows.cli.main()


if __name__ == "__main__":
    main()
