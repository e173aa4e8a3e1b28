"""`ratchet`: the command line. Whatever is heavy is imported by the command that needs it.

Exit codes: 0 done, whatever the verdict; 1 a step failed; 2 an invalid request; 3 data was refused; 4 the registry
cannot be read or written; 5 done here but not published; 130 interrupted.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.by_hand import approve, decline, promote, rollback
from flows.command import Json, ModelName
from flows.command import print_json as _print_json
from flows.command import project as _project
from flows.loop_commands import down, schedule, up
from flows.notify_commands import app as notify
from models.common.errors import DataBlockedError, RatchetError, RegistryError

if TYPE_CHECKING:
    from tasks.add import ProgressCallback
    from tasks.project.fingerprint import Inputs
    from tasks.run_outcome import RunOutcome

EXIT_CODES = {"HELD": 10, "REJECTED": 11, "UNCHANGED": 12, "AWAITING_APPROVAL": 13}  # with --exit-code
IMPORTED = time.perf_counter()  # the start, as near as can be told where there is no /proc
INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C ended

app = typer.Typer(
    help="Keeps models fresh: new data in, retrained, judged against production, promoted only when really better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def add(
    model: ModelName,
    source: Annotated[Path, typer.Argument(help="A folder, zip or tar of labelled examples.", show_default=False)],
    split: Annotated[
        str | None, typer.Option(help="Put all of it into one split: train, val or test.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Add labelled data: checked, deduplicated, versioned, committed and, where remotes exist, pushed.

    SOURCE holds what people of the model's kind deliver: class folders, or files beside metadata.csv or .jsonl
    (file_name, label or transcript, optional split and group); Pascal VOC or COCO; images and masks; LibriSpeech.
    """
    from flows.tables import show_added
    from tasks.add import add as add_source

    with _progress(f"reading {source.name}") as progress:
        report = add_source(_project(), model, source, split, progress)
    _look_now()
    if as_json:
        _print_json(_plain(report))
    else:
        show_added(report)


@app.command()
def remove(
    model: ModelName,
    batch: Annotated[str, typer.Argument(help="A batch, as `ratchet add` named it.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Take a batch out again, as a new data version. Earlier versions still have it."""
    from tasks.remove import remove as remove_batch

    report = remove_batch(_project(), model, batch)
    _look_now()
    if as_json:
        _print_json(_plain(report))
        return
    print(f"Removed {report.rows:,} examples ({report.batch}) from {report.model}; {len(report.batches_left)} left")
    for note in report.notes:
        print(f"Note: {note}")


@app.command()
def retrain(
    model: ModelName,
    revision: Annotated[str, typer.Option(help="Commit, branch or tag to retrain from; origin/… is fetched.")] = "HEAD",
    force: Annotated[bool, typer.Option("--force", help="Judge again what was judged from the same inputs.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 10 HELD, 11 REJECTED, 12 UNCHANGED, 13 AWAITING_APPROVAL.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Retrain, judge against production, and promote if really better.

    Runs in a worktree of its own: your files are neither used nor touched. Ends as PROMOTED, HELD (not shown to be
    better), REJECTED (worse somewhere), AWAITING_APPROVAL (better, and `gate.approval` is manual) or UNCHANGED.
    """
    from flows.tables import show_outcome

    root = _project()
    try:
        outcome = replace(_retrain(root, model, revision, force), seconds=_seconds_since_start())
    except RatchetError as error:
        if as_json:
            state = "BLOCKED" if isinstance(error, DataBlockedError) else "ERROR"
            _print_json({"model": model, "state": state, "reasons": [str(error)]})
        raise
    if as_json:
        _print_json(outcome.to_json())
    else:
        show_outcome(outcome)
    if exit_code:
        raise typer.Exit(EXIT_CODES.get(outcome.state, 0))


@app.command()
def status(as_json: Json = False) -> None:
    """Every model: in production since when and how good, what serves it, what is new, what is going on, what comes.

    What is going on and when the next run comes, `ratchet up` knows: it is shown where that runs.
    """
    from dataclasses import asdict

    from flows.tables import show_statuses
    from flows.up.place import find_up
    from flows.up.remote_control import Activity, activities
    from tasks.overview import statuses

    root = _project()
    rows, going_on = statuses(root), activities(root)
    if as_json:
        models = [row.to_json() | asdict(going_on.get(row.model, Activity())) for row in rows]
        place = find_up(root)
        _print_json({"models": models, "up": asdict(place) if place else None})
    else:
        show_statuses(rows, going_on)
    if problem := next((row.problem for row in rows if row.problem), None):
        raise RegistryError(problem)


@app.command()
def history(model: ModelName, as_json: Json = False) -> None:
    """Every candidate of a model: verdict, metric, gain with its interval, version, data version.

    Then what was put in production or decided: who, when and why.
    """
    from flows.tables import show_actions, show_history
    from tasks.overview import actions as list_actions
    from tasks.overview import history as list_candidates

    root = _project()
    rows = list_candidates(root, model)
    done = list_actions(root, model)
    if as_json:
        candidates = [row.to_json() for row in rows]
        _print_json({"model": model, "candidates": candidates, "actions": [trace.to_json() for trace in done]})
        return
    show_history(model, rows)
    if done:
        show_actions(done)


app.add_typer(notify, name="notify")
for by_hand in (approve, decline, promote, rollback):
    app.command()(by_hand)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", "--yes", help="Really delete; without it, only tell.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also on the DVC and git remotes: for every clone. Never by itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Free the disk of what nothing needs: bytes of old candidates, old reports, caches, logs, left-overs of crashes.

    Never goes: data; what is or was in production; what a branch, tag, stash or worktree names, here or on the remote;
    what runs are using. How much stays: the section `retention` of params.yaml.
    """
    from flows.tables import show_garbage
    from tasks.gc import collect

    report = collect(_project(), delete, remote)
    if as_json:
        _print_json(report.to_json())
    else:
        show_garbage(report)


@app.command()
def serve(
    model: ModelName,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for everyone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3000,
    version: Annotated[
        str | None, typer.Option(help="Another version than the one in production.", show_default=False)
    ] = None,
) -> None:
    """Serve the model in production on this machine, until Ctrl-C."""
    from tasks.packaging.champion_bento import champion_bento
    from tasks.project.paths import home
    from tasks.serve import serve as serve_bento

    root = _project()
    serve_bento(champion_bento(root, model, version), home(root), host, port)


app.command()(up)
app.command()(down)
app.command(hidden=True)(schedule)


def main() -> None:
    """Entry point: a refusal is one line on standard error and its own exit code."""
    from tasks.project.repository import disable_analytics

    disable_analytics()
    try:
        app()
    except RatchetError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as error:
        if error.code == INTERRUPTED:
            print("error: interrupted; nothing in production changed", file=sys.stderr)
        raise


def _look_now() -> None:
    """New data is noticed at once by this project's `ratchet up`."""
    from flows.up.remote_control import look_now

    look_now(_project())


def _retrain(root: Path, model: str, revision: str, force: bool) -> "RunOutcome":
    """The revision is resolved once: whatever moves meanwhile, the whole run is of one commit."""
    from flows.retraining.notify import recovered
    from tasks.project.fingerprint import read_inputs

    inputs = read_inputs(root, model, revision)
    if not force and (outcome := _unchanged(root, inputs)):
        recovered(root, model)
        return outcome
    return _run_flow(root, model, inputs.commit, force)


def _seconds_since_start() -> float:
    """Since the shell started this process: what a person waited, importing included."""
    status = Path("/proc/self/stat")
    if not status.exists():
        return time.perf_counter() - IMPORTED
    ticks = int(status.read_text().rpartition(")")[2].split()[19])  # its start, since the machine's
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _unchanged(root: Path, inputs: "Inputs") -> "RunOutcome | None":
    """Decided with git alone, before anything heavy is imported; None also where the registry does not answer."""
    from tasks.project.fingerprint import find_judgement
    from tasks.run_outcome import unchanged_outcome

    try:
        earlier = find_judgement(root, inputs.model, inputs.fingerprint)
    except RegistryError:  # the run tries again, more than once
        return None
    if earlier is None:
        return None
    return replace(unchanged_outcome(root, inputs, earlier), notes=_uncommitted_note(root))


def _run_flow(root: Path, model: str, commit: str, force: bool) -> "RunOutcome":
    """Under this project's `ratchet up` where that runs, else in this process."""
    for note in _uncommitted_note(root):
        print(f"note: {note}", file=sys.stderr)
    from flows.up.place import find_up

    if place := find_up(root):
        from flows.up import remote_control

        outcome = remote_control.retrain(place, root, model, commit, force)
    else:
        from flows.retraining.run import run_retrain

        outcome = run_retrain(root, model, commit, force)
    return replace(outcome, notes=_uncommitted_note(root))


def _uncommitted_note(root: Path) -> tuple[str, ...]:
    from tasks.project.repository import git

    changed = git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    if not changed:
        return ()
    return (f"{len(changed)} uncommitted changes in your checkout are not part of the run: git status",)


@contextmanager
def _progress(description: str) -> Iterator["ProgressCallback"]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _plain(report: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(report).items()}


if __name__ == "__main__":
    main()
