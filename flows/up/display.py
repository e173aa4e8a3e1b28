"""What `ratchet up` shows: a line for everything that happens and, in a terminal, a short live table below."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.up.supervisor import Supervisor

REFRESH_S = 2.0


class Display:
    """Where lines go, and the table."""

    def __init__(self, live: Live | None, console: Console) -> None:
        self._live, self._console, self._shown = live, console, 0.0

    def say(self, line: str) -> None:
        """One line, with the time of day."""
        self._console.print(Text(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}"), soft_wrap=True)

    def show(self, supervisor: "Supervisor") -> None:
        """Renews the table now and then."""
        if self._live and time.monotonic() - self._shown > REFRESH_S:
            self._shown = time.monotonic()
            self._live.update(_table(supervisor), refresh=True)


@contextmanager
def display() -> Iterator[Display]:
    """A display on standard output; the table only where that is a terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if not console.is_terminal:
        yield Display(None, console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Display(live, console)


def _table(supervisor: "Supervisor") -> Table:
    from flows.up.remote_control import activities

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("model", "now", "next run"):
        table.add_column(heading, no_wrap=True)
    found = activities(Path(supervisor.root))
    waiting = {run.model for run in supervisor.dispatcher.waiting}
    for model in supervisor.dispatcher.schedules:
        activity = found.get(model)
        now = activity.running if activity else ""
        coming = activity.next_run if activity else None
        table.add_row(model, now or ("waits for a slot" if model in waiting else "-"), moment(coming))
    return table


def moment(when: float | None) -> str:
    """A time as a person says it: the day only where it is not today."""
    if when is None:
        return ""
    today = time.strftime("%Y-%m-%d") == time.strftime("%Y-%m-%d", time.localtime(when))
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", time.localtime(when))
