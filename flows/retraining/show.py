"""What a run shows in Prefect: its log, a moving bar for the training, the decision, links to report and Data Docs."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from models.common.errors import RatchetError
from tasks.gating.verdict import Check, Verdict
from tasks.project.stages import LineHandler

EPOCH = re.compile(r"epoch (\d+)/(\d+)\b")  # as models/common/training/logger.py prints it at the end of each epoch


def log_line(text: str, shown: bool) -> None:
    """A line of a stage's output to the run's log; `shown`: the terminal has shown it already."""
    get_run_logger().info("%s", text, extra={"shown_in_terminal": shown})


@contextmanager
def training(model: str) -> Iterator[LineHandler]:
    """What takes the lines of a training: into the log, and its epochs into a progress artifact."""
    created = create_progress_artifact(0.0, key=_key(model, "training"), description="waiting for the first epoch")
    artifact = created if isinstance(created, UUID) else None  # a coroutine only in an async flow

    def update(percent: float, description: str) -> None:
        if artifact:
            update_progress_artifact(artifact, percent, description)

    def on_line(text: str, shown: bool) -> None:
        log_line(text, shown)
        if match := EPOCH.search(text):
            update(100.0 * int(match[1]) / int(match[2]), text)

    yield on_line
    update(100.0, "trained")


def decision(model: str, verdict: Verdict) -> None:
    """The verdict as tables: every check with its numbers, and the metrics beside the champion's."""
    reasons = "\n".join(f"- {reason}" for reason in verdict.reasons)
    rows = [_row(check) for check in verdict.checks]
    create_table_artifact(rows, key=_key(model, "decision"), description=f"## {verdict.outcome}\n\n{reasons}")


def metrics(model: str, values: dict[str, dict[str, float] | None], version: str | None) -> None:
    """Each metric of the candidate beside the champion's."""
    candidate, champion = values["candidate"] or {}, values["champion"] or {}
    rows = [
        {"metric": name, "candidate": _rounded(value), f"champion {version or '(none)'}": _rounded(champion.get(name))}
        for name, value in candidate.items()
    ]
    create_table_artifact(rows, key=_key(model, "metrics"), description=f"{model}: the candidate and the champion")


def links(model: str, folder: Path) -> None:
    """Links to the copied results, on the machine that ran it."""
    for name, file in (("report", "report.html"), ("data-docs", "data_docs/index.html")):
        if (folder / file).exists():
            uri = (folder / file).as_uri()
            create_link_artifact(uri, link_text=file, key=_key(model, name), description=f"{name} of {folder.name}")


def filter_logs() -> None:
    """A refusal is one line in the log, not a stack trace; what the terminal has shown is not shown twice."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(_drop_stack_trace)
    for handler in logging.getLogger().handlers:
        if "Console" in type(handler).__name__:
            handler.addFilter(lambda record: not getattr(record, "shown_in_terminal", False))


def _drop_stack_trace(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RatchetError):
        record.exc_info, record.exc_text = None, None
        record.msg, record.args = "%s", (str(error),)
    return True


def _row(check: Check) -> dict[str, Any]:
    numbers = {name: _rounded(getattr(check, name)) for name in ("candidate", "champion", "gain", "lower", "upper")}
    return {"check": check.about, "of": check.name, "status": check.status, **numbers, "message": check.message}


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _key(model: str, name: str) -> str:
    """Prefect's keys are lower-case letters, digits and dashes."""
    return f"{model.replace('_', '-')}-{name}"
