"""`make demo`: Ratchet's whole story on handwritten digits, offline, in a clone of its own under .demo/.

First data → first champion; more data → promoted; nothing new → unchanged; wrong labels → not promoted; rollback and
back; a real request to the served Bento. Every step is the command that a user would type.
"""

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
from tests.digits import write_digits
from tests.story import CODE, Story, wait_for

FOLDER = CODE / ".demo"
MODEL = "digits"


def main() -> None:
    """Tells the story and exits with 1 where it did not go as it should."""
    story = Story(FOLDER)
    started = time.perf_counter()
    story.console.rule("Ratchet on handwritten digits")
    story.begin()
    first, more, wrong = _deliveries(story.folder)
    with _prefect_server(story):
        _retrain(story, "120 scans arrive", first, "PROMOTED")
        _retrain(story, "900 more arrive", more, "PROMOTED")
        _retrain_again(story)
        _wrong_labels(story, wrong)
    _rollback_and_back(story)
    _request(story, more)
    story.console.print()
    story.console.print(story.table(f"What happened, in {time.perf_counter() - started:.0f} s"))
    runs = (story.project / "artifacts" / MODEL / "runs").glob(f"{MODEL}-*/report.html")
    story.console.print("Reports, oldest first:")
    for report in sorted(runs, key=os.path.getmtime):
        story.console.print(f"  {report}", soft_wrap=True)
    story.console.print("Look around: cd .demo/project && ../../.venv/bin/ratchet history digits", soft_wrap=True)


def _deliveries(folder: Path) -> tuple[Path, Path, Path]:
    """Three folders of class folders, as data engineers would hand them over; the last has most labels wrong."""
    deliveries = folder / "deliveries"
    return (
        write_digits(deliveries / "january", 0, 120),
        write_digits(deliveries / "february", 120, 1020),
        write_digits(deliveries / "march", 1020, 1797, shuffled=0.7),
    )


def _retrain(story: Story, what: str, source: Path, expected: str) -> None:
    start = time.perf_counter()
    added = story.ratchet("add", MODEL, str(source))
    answer = story.ratchet("retrain", MODEL)
    _expect(answer, {expected})
    came = f"{answer['state']} as {answer['version']}: {_decision(answer)}"
    story.tell(f"{what}: add {added['added']}, retrain", came, time.perf_counter() - start)


def _retrain_again(story: Story) -> None:
    answer = story.ratchet("retrain", MODEL)
    _expect(answer, {"UNCHANGED"})
    story.tell("nothing new: retrain", "UNCHANGED", answer["seconds"])


def _wrong_labels(story: Story, source: Path) -> None:
    start = time.perf_counter()
    before = _champion(story)
    added = story.ratchet("add", MODEL, str(source))
    answer = story.ratchet("retrain", MODEL)
    _expect(answer, {"HELD", "REJECTED", "BLOCKED"})
    if _champion(story) != before:
        sys.exit("error: the demo's mislabelled batch changed the champion")
    story.tell(
        f"{added['added']} scans with wrong labels: add, retrain",
        f"{answer['state']}, production untouched: {_decision(answer)}",
        time.perf_counter() - start,
    )
    removed = story.ratchet("remove", MODEL, added["batch"])
    story.tell("that batch is taken out: remove", f"{removed['batch']} removed", removed["seconds"])


def _rollback_and_back(story: Story) -> None:
    newest = _champion(story)
    back = story.ratchet("rollback", MODEL)
    forth = story.ratchet("rollback", MODEL, "--to", newest)
    if _champion(story) != newest:
        sys.exit(f"error: after rollback and back the champion should be {newest}")
    came = f"production is {back['version']}, then {forth['version']} again"
    story.tell("rollback, and back", came, back["seconds"] + forth["seconds"])


def _request(story: Story, folder: Path) -> None:
    start = time.perf_counter()
    port = free_port()
    five = sorted((folder / "five").glob("*.png"))[0]
    command = [sys.executable, "-m", "flows.cli", "serve", MODEL, "--port", str(port)]
    story.console.print(f"\n[bold]$ ratchet serve {MODEL} --port {port}[/bold]")
    with _process(command, story):
        wait_for(f"http://127.0.0.1:{port}/readyz", 90)
        story.console.print(f"[bold]$ curl -F image=@{five.name} http://127.0.0.1:{port}/predict[/bold]")
        reply = httpx.post(f"http://127.0.0.1:{port}/predict", files={"image": five.read_bytes()}, timeout=30)
    reply.raise_for_status()
    answer = reply.json()
    story.console.print_json(data=answer)
    if answer["label"] != "five":
        sys.exit(f"error: the served model reads a five as {answer['label']}")
    chance = max(answer["probabilities"].values())
    story.tell("serve, and ask with a scan of a 5", f"“{answer['label']}” ({chance:.0%})", time.perf_counter() - start)


def _expect(answer: dict[str, Any], states: set[str]) -> None:
    if answer.get("state") not in states:
        sys.exit(f"error: expected {' or '.join(sorted(states))}, got {answer}")


def _champion(story: Story) -> str:
    """Version in production, as `ratchet status` tells it."""
    return str(next(row["version"] for row in story.ratchet("status")["models"] if row["model"] == MODEL))


def _decision(answer: dict[str, Any]) -> str:
    return str((answer.get("reasons") or [""])[0])


@contextmanager
def _prefect_server(story: Story) -> Iterator[None]:
    """One Prefect server for all runs, as a team would have; its UI stays up while the story is told."""
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
        main()
    except TimeoutError as error:
        sys.exit(f"error: {error}")
