"""Tells people what happened, through Prefect's notification blocks: one message per thing, to each channel.

Nothing here ever fails a run: what cannot be sent is tried again a few times and then logged. Prefect is imported only
when there is something to tell and someone to tell it to.
"""

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.retraining.steps import runner
from models.common.errors import DataBlockedError
from tasks.channels import Channel, Told, channels, told
from tasks.project.paths import main_checkout
from tasks.run_outcome import RunOutcome

RETRIES = (1.0, 5.0)  # seconds before a message that could not be sent is sent again
FAILURES = ("BLOCKED", "ERROR")  # told once for each reason, until a run of the model ends otherwise
NEXT = {  # what to do, by what happened
    "PROMOTED": "Take it back, if need be: ratchet rollback {model} --why TEXT",
    "HELD": "Nothing has to be done; more test examples would decide. See: ratchet history {model}",
    "REJECTED": "See: ratchet history {model}",
    "BLOCKED": "Take the batch out: ratchet remove {model} BATCH; or correct the check's limit in params.yaml",
    "ERROR": "When the cause is gone: ratchet retrain {model}",
    "AWAITING_APPROVAL": "Decide: ratchet approve {model}; or: ratchet decline {model} --why TEXT",
    "APPROVED": "Take it back, if need be: ratchet rollback {model} --why TEXT",
    "FORCED": "Take it back, if need be: ratchet rollback {model} --why TEXT",
    "DECLINED": "See: ratchet history {model}",
    "ROLLED_BACK": "See: ratchet history {model}",
}
SUSPECT = "Is a batch at fault? Take it out: ratchet remove {model} BATCH"


@dataclass(frozen=True)
class Event:
    """One thing that happened and is worth a message."""

    what: str  # one of tasks.channels.EVENTS
    model: str | None = None  # None: it concerns all of them
    why: tuple[str, ...] = ()  # reasons, a line each
    where: Path | str | None = None  # to look at: a report, a log, a page
    todo: str | None = None  # what to do next; by default what NEXT says
    version: str | None = None  # in production now
    previous: str | None = None  # in production before
    by: str | None = None  # the person who did it
    key: str = ""  # the same key is told once; "": a thing of its own each time


def tell(root: Path, event: Event) -> None:
    """Sends the event to every channel that wants it and has not had it; never raises."""
    try:
        wanting = [channel for channel in channels(root) if channel.wants(event.what)]
        if wanting:
            with told(root) as known:
                for channel in wanting:
                    _tell(root, channel, known, event)
    except Exception as error:  # a message is never worth a run
        runner().log(f"nobody could be told of {event.what}: {error}")


def and_tell(root: Path, model: str, run: Callable[[], RunOutcome]) -> RunOutcome:
    """Carries out a run and tells how it ended. Its error is raised."""
    try:
        outcome = run()
    except Exception as error:
        tell(root, failure(root, model, error))
        raise
    recovered(root, model)
    if outcome.state != "UNCHANGED":
        tell(root, ending(outcome))
    return outcome


def ending(outcome: RunOutcome) -> Event:
    """How a run ended, as an event."""
    return Event(
        outcome.state,
        outcome.model,
        outcome.reasons,
        where=outcome.report,
        todo=SUSPECT.format(model=outcome.model) if outcome.suspects_batch else None,
        version=outcome.version,
        previous=outcome.previous,
        key=f"{outcome.state} {outcome.model} {outcome.commit}",
    )


def failure(root: Path, model: str, error: Exception) -> Event:
    """How a run failed, as an event; the same failure again is no news.

    Of an error its numbers and paths may differ; of data that is blocked another number is another thing.
    """
    what = "BLOCKED" if isinstance(error, DataBlockedError) else "ERROR"
    reason = str(error) or type(error).__name__
    docs = main_checkout(root) / "artifacts" / model / "runs/latest/data_docs/index.html"
    return Event(
        what,
        model,
        (reason,),
        where=docs if what == "BLOCKED" and docs.exists() else None,
        key=f"{what} {model} {reason if what == 'BLOCKED' else re.sub(r'[0-9]+|/[^ ]*', '#', reason)}",
    )


def message(root: Path, event: Event) -> tuple[str, str]:
    """(subject, body): what, why, where to look, what to do."""
    what = event.what.replace("_", " ")
    subject = f"{event.model or 'Ratchet'}: {what}" + (f" as {event.version}" if event.what == "PROMOTED" else "")
    lines = [f"• {reason}" for reason in event.why]
    if event.by:
        lines.append(f"By: {event.by}")
    if event.model:
        was = f" (was {event.previous or 'nothing'})" if event.previous != event.version else ""
        lines += [f"In production: {event.version or 'nothing yet'}{was}"] if event.what not in FAILURES else []
    if event.where:
        lines.append(f"Look at: {event.where}")
    if todo := event.todo or NEXT.get(event.what, "").format(model=event.model):
        lines.append(todo)
    lines.append(f"Project {root} on {socket.gethostname()}")
    return subject, "\n".join(lines)


def send(channel: Channel, subject: str, body: str) -> str | None:
    """Sends one message; None, or why it could not be sent after the last try."""
    from prefect.blocks.abstract import NotificationError
    from prefect.blocks.notifications import AppriseNotificationBlock

    block = AppriseNotificationBlock(url=channel.url)  # type: ignore[arg-type]  # made a SecretStr
    if not len(block._apprise_client):
        return "no URL that Apprise knows"
    problem = ""
    for delay in (*RETRIES, None):
        try:
            with block.raise_on_failure():
                block.notify(body, subject)
            return None
        except NotificationError as error:
            problem = error.log.strip().splitlines()[-1] if error.log.strip() else "no reason given"
        except Exception as error:  # whatever a service's plug-in raises
            problem = f"{type(error).__name__}: {error}"
        if delay is not None:
            time.sleep(delay)
    return channel.masked(problem)


def is_url(url: str) -> bool:
    """Whether Apprise knows what to do with it."""
    from prefect.blocks.notifications import AppriseNotificationBlock

    block = AppriseNotificationBlock(url=url)  # type: ignore[arg-type]  # made a SecretStr
    return len(block._apprise_client) > 0


def _tell(root: Path, channel: Channel, known: Told, event: Event) -> None:
    if event.key and known.knows(channel.name, event.key):
        return
    try:
        problem = send(channel, *message(root, event))
    except Exception as error:  # of one channel is no reason to leave out the others
        problem = channel.masked(f"{type(error).__name__}: {error}")
    if problem:
        runner().log(f"{channel.name} could not be told of {event.what}: {problem}")
    elif event.key:
        known.add(channel.name, event.key, event.model, event.what)


def recovered(root: Path, model: str) -> None:
    """A run that reached its end ends what failed before: failing again will be news. Never raises."""
    try:
        if channels(root):
            with told(root) as known:
                known.forget(model, FAILURES)
    except Exception as error:
        runner().log(f"what was told could not be read: {error}")
