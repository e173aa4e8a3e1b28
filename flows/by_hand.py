"""The commands by which a person decides what is in production; each leaves who, when and why in the tag's message."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command import Json, ModelName, print_json, project

Candidate = Annotated[
    str | None, typer.Argument(help="As `ratchet history` names it.", show_default="the one that waits")
]
Why = Annotated[str | None, typer.Option(help="Why, for those who read the history.", show_default=False)]


def approve(model: ModelName, candidate: Candidate = None, why: Why = None, as_json: Json = False) -> None:
    """Put a candidate that awaits approval in production (`gate.approval: manual`).

    Refused where something else came into production since it was judged: it is judged again by the next retrain.
    """
    from tasks.approve import approve as approve_candidate

    root = project()
    waited, promoted = approve_candidate(root, model, candidate, why)
    previous = waited.judged_against.version if waited.judged_against else None
    answer = {
        "model": model,
        "state": "APPROVED",
        "candidate": waited.candidate,
        "version": promoted.version,
        "previous": previous,
    }
    _answer(answer, f"{model} {promoted.version} is in production (was {previous or 'nothing'})", as_json)
    _tell(root, "APPROVED", answer, why)


def decline(
    model: ModelName,
    candidate: Candidate = None,
    why: Annotated[str, typer.Option(help="Why it is not wanted; kept in the history.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """Say no to a candidate that awaits approval. Production stays as it is; --why is needed."""
    from tasks.approve import decline as decline_candidate

    root = project()
    declined = decline_candidate(root, model, candidate, why)
    in_production = declined.judged_against.version if declined.judged_against else None
    answer = {"model": model, "state": "DECLINED", "candidate": declined.candidate, "version": in_production}
    _answer(answer, f"{declined.candidate} is declined; {model} in production stays as it is", as_json)
    _tell(root, "DECLINED", answer | {"previous": in_production}, why)


def promote(
    model: ModelName,
    candidate: Annotated[str, typer.Argument(help="As `ratchet history` names it.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Against the gate's advice.")] = False,
    why: Why = None,
    as_json: Json = False,
) -> None:
    """Put a candidate in production that was held or rejected, against the gate's advice: needs --force and --why.

    It is packaged and smoke-tested first. For an earlier version there is `ratchet rollback --to`, and for a candidate
    that awaits approval `ratchet approve`.
    """
    from tasks.force import force_promotion

    root = project()
    forced = force_promotion(root, model, candidate, why, force)
    version, verdict = forced.champion.version, forced.verdict.outcome
    answer = {
        "model": model,
        "state": "FORCED",
        "candidate": forced.candidate,
        "verdict": verdict,
        "version": version,
        "previous": forced.previous,
    }
    was = forced.previous or "nothing"
    _answer(answer, f"{model} {version} is in production (was {was}) against the verdict {verdict}", as_json)
    _tell(root, "FORCED", answer, why)


def rollback(
    model: ModelName,
    to: Annotated[str | None, typer.Option(help="A version, earlier or later.", show_default="the one before")] = None,
    why: Annotated[
        str | None, typer.Option(help="Why. Not needed in a hurry, but others will ask.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Put an earlier version back in production at once, by a new tag; `--to` goes to any version, also forth again.

    The next scheduled run does not undo it: what was judged is not judged again.
    """
    from tasks.project.registry import champion
    from tasks.project.registry import rollback as roll_back
    from tasks.project.trace import ROLLED_BACK, trailers

    root = project()
    before = champion(root, model)
    after = roll_back(root, model, to, trailers(root, ROLLED_BACK, why))
    answer = {"model": model, "version": after.version, "previous": before.version if before else None}
    _answer(answer, f"{model} {after.version} is in production again (was {answer['previous']})", as_json)
    _tell(root, "ROLLED_BACK", answer, why)


def _tell(root: Path, what: str, answer: dict[str, Any], why: str | None) -> None:
    """Once it is done and said here, whoever is to be told. The reason is told as it was recorded."""
    from flows.retraining.notify import Event, tell
    from tasks.project.trace import identity, one_line
    from tasks.run_outcome import report_of

    candidate = answer.get("candidate")
    tell(
        root,
        Event(
            what,
            answer["model"],
            (one_line(why),) if why else (),
            where=candidate and report_of(root, answer["model"], candidate),
            version=answer["version"],
            previous=answer["previous"],
            by=identity(root),
        ),
    )


def _answer(answer: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print(line)
