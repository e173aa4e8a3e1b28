"""What a step of a run is, and who carries steps out: Prefect where there is a server, else this process alone."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from models.common.errors import LostRaceError, PublishError, RegistryError
from tasks.gating.verdict import Verdict
from tasks.project.stages import LineHandler

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Step(Generic[P, R]):
    """A function that is called as a step of a run: with a name, a time limit and retries."""

    function: Callable[P, R]
    name: str
    hours: float  # time limit, where Prefect runs it
    delays: tuple[float, ...] = ()  # seconds before each retry
    retries_on: Callable[[BaseException], bool] = bool  # which errors a retry may help; an error is true: any

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        start = time.monotonic()
        try:
            result: R = runner().call(self, args, kwargs)
        finally:
            _timings.get([]).append((self.name, time.monotonic() - start))
        return result


class Runner(Protocol):
    """Carries out the steps of one run and shows what happens."""

    def call(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The step's result; its error is raised after the last retry."""
        ...

    def log(self, text: str, shown: bool = False) -> None:
        """A line for the log; `shown`: the terminal has shown it already."""
        ...

    def training(self, model: str, /) -> AbstractContextManager[LineHandler]:
        """What takes the lines of a training, and follows its epochs."""
        ...

    def show_decision(self, model: str, verdict: Verdict, metrics: dict[str, Any], champion: str | None) -> None:
        """The verdict, and each metric of the candidate beside the champion's."""
        ...

    def show_links(self, model: str, folder: Path) -> None:
        """Where the copied report and Data Docs are."""
        ...


_runner: ContextVar[Runner] = ContextVar("runner")
_timings: ContextVar[list[tuple[str, float]]] = ContextVar("timings")


def runner() -> Runner:
    """Who carries out the run that is going on; this process alone where nothing else was said."""
    return _runner.get(None) or LocalRunner()


@contextmanager
def carried_out_by(chosen: Runner) -> Iterator[None]:
    """Within the block, steps are carried out by `chosen`."""
    token = _runner.set(chosen)
    try:
        yield
    finally:
        _runner.reset(token)


@contextmanager
def timed() -> Iterator[list[tuple[str, float]]]:
    """The steps that are taken within the block, in their order: (name, seconds)."""
    token = _timings.set([])
    try:
        yield _timings.get()
    finally:
        _timings.reset(token)


def step(
    hours: float,
    name: str | None = None,
    delays: tuple[float, ...] = (),
    retries_on: Callable[[BaseException], bool] = bool,
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Makes a step of a function. `hours`: its time limit; `delays`: seconds before each retry."""
    return lambda function: Step(function, name or function.__name__, hours, delays, retries_on)


def is_transient(error: BaseException) -> bool:
    """A remote that could not be reached may answer on a second try; a lost race or a wrong answer would not change."""
    return isinstance(error, (RegistryError, PublishError)) and not isinstance(error, LostRaceError)


class LocalRunner:
    """Steps as plain calls, their log on standard error. Nothing is recorded but what git and DVC keep."""

    def call(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for delay in step.delays:
            try:
                return step.function(*args, **kwargs)
            except Exception as error:
                if not step.retries_on(error):
                    raise
                self.log(f"{step.name}: {error}; trying again in {delay:.0f} s")
                time.sleep(delay)
        return step.function(*args, **kwargs)

    def log(self, text: str, shown: bool = False) -> None:
        if not shown:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def training(self, _model: str) -> AbstractContextManager[LineHandler]:
        return nullcontext(self.log)

    def show_decision(self, *_: Any) -> None:
        pass  # the command prints it at its end

    def show_links(self, *_: Any) -> None:
        pass
