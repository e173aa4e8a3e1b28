"""What `ratchet up` does beside the runs, in threads of their own: retention, messages."""

import threading
from collections.abc import Callable
from pathlib import Path

from flows.retraining.notify import Event, tell
from flows.up.runs import log_file
from models.common.errors import RatchetError
from tasks.gc import collect


def in_background(name: str, work: Callable[[], None]) -> None:
    """Does it in a thread that keeps nobody waiting."""
    threading.Thread(target=work, name=name, daemon=True).start()


def clean_up(root: Path, say: Callable[[str], None]) -> None:
    """Frees the disk of what nothing needs (`ratchet gc --delete`)."""
    try:
        report = collect(root, delete=True)
    except (RatchetError, OSError) as error:
        say(f"gc: {error}")
    else:
        say(f"gc: freed {report.size / 2**20:.1f} MB")


def tell_that_a_run_is_gone(root: Path, model: str, run: str, why: str) -> None:
    """The process of a run ended before its time, again and again."""
    todo = f"When the cause is gone: ratchet retrain {model}"
    event = Event("WORKER_GONE", model, (why,), where=log_file(root, run), todo=todo, key=f"WORKER_GONE {run}")
    in_background("tell", lambda: tell(root, event))
