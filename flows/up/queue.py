"""Which runs of a queue start now. Pure: no clock, no server, no processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class QueuedRun:
    """A run that is due. `same`: what else it would be superseded by, model and parameters."""

    id: str
    model: str
    due: float  # Unix time, s
    created: float  # Unix time, s
    same: str
    priority: int = 0
    slots: int = 1  # that it takes of those that all models share


@dataclass(frozen=True)
class Plan:
    """What to do with the runs of a queue."""

    superseded: tuple[QueuedRun, ...]  # a newer trigger says the same
    start: tuple[QueuedRun, ...]
    waiting: tuple[QueuedRun, ...]


def plan(queued: Sequence[QueuedRun], running: Mapping[str, int], slots: int) -> Plan:
    """One run of a model at a time; of runs that ask for the same, the newest; into free slots by priority, then age.

    `running`: slots that each running model takes.
    """
    newest = {run.same: run for run in sorted(queued, key=lambda run: (run.created, run.due, run.id))}
    superseded = tuple(run for run in queued if newest[run.same].id != run.id)
    free, busy, start, waiting = slots - sum(running.values()), set(running), [], []
    blocked = False  # a run that needs more slots than are free is not overtaken by smaller ones, else it would starve
    for run in sorted(newest.values(), key=lambda run: (-run.priority, run.due, run.created, run.id)):
        needed = min(run.slots, slots)
        if run.model in busy:
            waiting.append(run)
        elif blocked or needed > free:
            blocked = True
            waiting.append(run)
        else:
            free -= needed
            busy.add(run.model)
            start.append(run)
    return Plan(superseded, tuple(start), tuple(waiting))
