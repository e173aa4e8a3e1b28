"""`make demo`: Ratchet's whole story, offline, in a clone of its own under .demo/; on handwritten digits, or KIND=….

First data → first champion; more data → promoted; nothing new → unchanged; wrong labels → not promoted; rollback and
back; a real request to the served Bento. Every step is the command that a user would type. What is delivered is in
tests/samples/.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tasks.serve import free_port
from tests.story import CODE, Story, wait_for

FOLDER = CODE / ".demo"
SAMPLES = Path(__file__).parent / "samples"
DELIVERIES = (("first", "january"), ("more", "february"), ("wrong", "march"))


def main(kind: str) -> None:
    """Runs the story of a kind and exits with 1 where it did not go as expected."""
    sample = load_sample(kind)
    story = Story(FOLDER / kind)
    started = time.perf_counter()
    story.console.rule(f"Ratchet on {kind.replace('_', ' ')}: {sample.MODEL}")
    story.begin({sample.MODEL: sample.SECTION})
    first, more, wrong = (getattr(sample, which)(story.folder / "deliveries" / name) for which, name in DELIVERIES)
    with _prefect_server(story):
        _retrain(story, sample.MODEL, first, "PROMOTED")
        _retrain(story, sample.MODEL, more, "PROMOTED")
        _retrain_again(story, sample.MODEL)
        _wrong(story, sample.MODEL, wrong)
    _rollback_and_back(story, sample.MODEL)
    _request(story, sample)
    story.console.print()
    story.console.print(story.table(f"What happened, in {time.perf_counter() - started:.0f} s"))
    runs = (story.project / "artifacts" / sample.MODEL / "runs").glob(f"{sample.MODEL}-*/report.html")
    story.console.print("Reports, oldest first:")
    for report in sorted(runs, key=os.path.getmtime):
        story.console.print(f"  {report}", soft_wrap=True)
    story.console.print(
        f"Look around: cd .demo/{kind}/project && ../../../.venv/bin/ratchet history {sample.MODEL}", soft_wrap=True
    )


def load_sample(kind: str) -> Any:
    """tests/samples/<kind>.py, or the end, naming those there are."""
    known = sorted(path.stem for path in SAMPLES.glob("*.py") if (CODE / "models" / path.stem).is_dir())
    if kind not in known:
        sys.exit(f"error: no demo of kind '{kind}'. There are: {', '.join(known)}. Try: make demo KIND={known[0]}")
    return importlib.import_module(f"tests.samples.{kind}")


def _retrain(story: Story, model: str, source: Path, expected: str) -> None:
    start = time.perf_counter()
    added = story.ratchet("add", model, str(source))
    answer = story.ratchet("retrain", model)
    _expect(answer, {expected})
    result = f"{answer['state']} as {answer['version']}: {_decision(answer)}"
    story.record(f"{added['added']} examples arrive: add, retrain", result, time.perf_counter() - start)


def _retrain_again(story: Story, model: str) -> None:
    answer = story.ratchet("retrain", model)
    _expect(answer, {"UNCHANGED"})
    story.record("nothing new: retrain", "UNCHANGED", answer["seconds"])


def _wrong(story: Story, model: str, source: Path) -> None:
    start = time.perf_counter()
    before = _champion(story, model)
    added = story.ratchet("add", model, str(source))
    answer = story.ratchet("retrain", model)
    _expect(answer, {"HELD", "REJECTED", "BLOCKED"})
    if _champion(story, model) != before:
        sys.exit("error: the demo's wrong batch changed the champion")
    story.record(
        f"{added['added']} wrongly labelled examples: add, retrain",
        f"{answer['state']}, production untouched: {_decision(answer)}",
        time.perf_counter() - start,
    )
    removed = story.ratchet("remove", model, added["batch"])
    story.record("that batch is taken out: remove", f"{removed['batch']} removed", removed["seconds"])


def _rollback_and_back(story: Story, model: str) -> None:
    newest = _champion(story, model)
    back = story.ratchet("rollback", model)
    forth = story.ratchet("rollback", model, "--to", newest)
    if _champion(story, model) != newest:
        sys.exit(f"error: after rollback and back the champion should be {newest}")
    result = f"production is {back['version']}, then {forth['version']} again"
    story.record("rollback, and back", result, back["seconds"] + forth["seconds"])


def _request(story: Story, sample: Any) -> None:
    start = time.perf_counter()
    port = free_port()
    form = sample.question(story.folder / "question")
    command = [sys.executable, "-m", "flows.cli", "serve", sample.MODEL, "--port", str(port)]
    story.console.print(f"\n[bold]$ ratchet serve {sample.MODEL} --port {port}[/bold]")
    fields = " ".join(f"-F {name}=@{path.name}" for name, path in form.items())
    with _process(command, story):
        wait_for(f"http://127.0.0.1:{port}/readyz", 90)
        story.console.print(f"[bold]$ curl {fields} http://127.0.0.1:{port}/predict[/bold]")
        files = {name: (path.name, path.read_bytes()) for name, path in form.items()}
        reply = httpx.post(f"http://127.0.0.1:{port}/predict", files=files, timeout=30)
    reply.raise_for_status()
    story.console.print_json(data=_short(reply.json()))
    if mistake := sample.right(reply.json()):
        sys.exit(f"error: the served model is wrong: {mistake}")
    story.record(
        f"serve, and ask with {', '.join(path.name for path in form.values())}", "right", time.perf_counter() - start
    )


def _short(value: Any) -> Any:
    """An answer as a person wants to read it: neither whole pictures nor whole embeddings."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value[:6]] + (["…"] if len(value) > 6 else [])
    return f"{value[:60]}…" if isinstance(value, str) and len(value) > 60 else value


def _expect(answer: dict[str, Any], states: set[str]) -> None:
    if answer.get("state") not in states:
        sys.exit(f"error: expected {' or '.join(sorted(states))}, got {answer}")


def _champion(story: Story, model: str) -> str:
    """Version in production, as `ratchet status` shows it."""
    return str(next(row["version"] for row in story.ratchet("status")["models"] if row["model"] == model))


def _decision(answer: dict[str, Any]) -> str:
    return str((answer.get("reasons") or [""])[0])


@contextmanager
def _prefect_server(story: Story) -> Iterator[None]:
    """One Prefect server for all runs, as a team would have; its UI stays up while the story runs."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{port}/api"  # else its pages ask port 4200
    with _process([*command, "--log-level", "ERROR"], story, silent=True):
        wait_for(f"http://127.0.0.1:{port}/api/health", 120)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        story.console.print(f"Prefect's pages, while the demo runs: http://127.0.0.1:{port}/runs")
        try:
            yield
        finally:
            del os.environ["PREFECT_API_URL"]


@contextmanager
def _process(command: list[str], story: Story, silent: bool = False) -> Iterator[None]:
    out = subprocess.DEVNULL if silent else None
    started = subprocess.Popen(
        command, cwd=story.project, env=story.environment, stdout=out, stderr=out, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(started.pid, signal.SIGINT)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "image_classification")
    except TimeoutError as error:
        sys.exit(f"error: {error}")
