"""What no kind reads: how a candidate is judged, what it may cost, how it is served, when it is retrained."""

from typing import Literal

from pydantic import Field

from models.common.params import Section


class Budgets(Section):
    """Limits on what is shipped, each absolute or None, and how many times the champion's it may be."""

    latency_ms: float | None = Field(default=None, gt=0)  # median of one example on this machine's CPU
    size_mb: float | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)  # peak resident memory of a process that serves it
    times_champion: float | None = Field(default=2.0, gt=0)


class Gate(Section):
    """The policy by which a candidate is judged; docs/gate.md explains each number."""

    metric: str = "accuracy"  # where params name none: the first of the kind's METRICS
    rule: Literal["improve", "non_inferior"] = "improve"
    min_gain: float = Field(default=0.0, ge=0)
    margin: float = Field(default=0.01, gt=0)  # non_inferior only
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    floors: dict[str, float] = Field(default={})  # metric: value it must reach (or stay under, where less is better)
    slices: tuple[str, ...] = ()  # columns beside label; every class is a slice anyway
    slice_tolerance: float = Field(default=0.02, ge=0)
    slice_min: int = Field(default=30, ge=1)  # test examples that a slice needs to be judged
    resamples: int = Field(default=10_000, ge=100)
    approval: Literal["automatic", "manual"] = "automatic"  # manual: what is better waits for `ratchet approve`
    budgets: Budgets = Budgets()


class Serve(Section):
    """Limits of the service."""

    max_body_mb: float = Field(default=16.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)
    threads: int = Field(default=1, ge=1)


class WaitFor(Section):
    """How much has to be new before a retraining that nobody asked for; either is enough. None: anything."""

    examples: int | None = Field(default=None, ge=1)
    batches: int | None = Field(default=None, ge=1)


class Schedule(Section):
    """When `ratchet up` retrains a model by itself."""

    cron: str | None = None  # by the clock
    on_new_data: bool = True  # as soon as data, code or params of the model changed
    wait_for: WaitFor = WaitFor()
    priority: int = 0  # of runs that wait for a slot, the highest starts first
