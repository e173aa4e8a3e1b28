"""Which runs of a queue start: pure."""

import pytest

from flows.up.queue import QueuedRun, plan


def queued(name: str, model: str = "", at: float = 0.0, **options: object) -> QueuedRun:
    """A run called `name`; runs of one model that differ in nothing else ask for the same."""
    model = model or name
    values = {"id": name, "model": model, "due": at, "created": at, "same": model} | options
    return QueuedRun(**values)  # type: ignore[arg-type]


def ids(runs: tuple[QueuedRun, ...]) -> list[str]:
    return [run.id for run in runs]


def test_of_triggers_that_ask_for_the_same_the_newest_stays() -> None:
    decided = plan([queued(f"{at}", "digits", at) for at in range(9)], {"digits": 1}, slots=1)
    assert ids(decided.superseded) == [f"{at}" for at in range(8)]
    assert (ids(decided.start), ids(decided.waiting)) == ([], ["8"])


def test_what_asks_for_something_else_is_not_superseded() -> None:
    """A person asked for a certain commit, and the clock for the newest."""
    person = queued("person", "digits", 0.0, same="digits at 1a2b3c")
    decided = plan([person, queued("clock", "digits", 5.0)], {}, slots=2)
    assert decided.superseded == ()
    assert (ids(decided.start), ids(decided.waiting)) == (["person"], ["clock"])


def test_a_model_runs_once_at_a_time_though_there_are_slots() -> None:
    decided = plan([queued("again", "digits"), queued("words")], {"digits": 1}, slots=4)
    assert (ids(decided.start), ids(decided.waiting)) == (["words"], ["again"])


def test_slots_go_by_priority_and_then_by_age() -> None:
    runs = [queued("old", at=0), queued("older", at=-1), queued("urgent", at=9, priority=1)]
    assert ids(plan(runs, {}, slots=2).start) == ["urgent", "older"]
    assert ids(plan(runs, {"other": 1}, slots=2).start) == ["urgent"]
    assert ids(plan(runs, {"other": 2}, slots=2).waiting) == ["urgent", "older", "old"]


def test_what_needs_several_gpus_is_not_overtaken_for_ever() -> None:
    runs = [queued("large", at=0, slots=2), queued("small", at=1)]
    assert plan(runs, {"other": 1}, slots=2).start == ()
    assert ids(plan(runs, {}, slots=2).start) == ["large"]
    assert ids(plan(runs, {}, slots=3).start) == ["large", "small"]


def test_what_asks_for_more_slots_than_there_are_gets_them_all() -> None:
    assert ids(plan([queued("huge", slots=8)], {}, slots=2).start) == ["huge"]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_never_more_runs_than_slots(slots: int) -> None:
    runs = [queued(f"{number}", at=number) for number in range(5)]
    assert len(plan(runs, {}, slots).start) == slots
