"""The gate's verdict: the outcome, the reasons in plain sentences, and every check with its numbers."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from tasks.project.finite_json import finite_json

Outcome = Literal["PROMOTE", "HOLD", "REJECT", "ERROR"]
Status = Literal["pass", "fail", "undecided", "info"]  # info: worth knowing, decides nothing
Looks = Literal[
    "nothing wrong seen", "diverged", "batch differs", "did not fit", "stopped early", "overfitted", "not known"
]
TRAINING_AT_FAULT: tuple[Looks, ...] = ("diverged", "did not fit", "stopped early")


@dataclass(frozen=True)
class Check:
    """One check of the gate. A number that does not apply is None.

    about: primary, baseline, floor, class, slice, new class, budget, precondition; name: which one, such as `cat`.
    gain, lower, upper: better is positive whatever the metric; the bounds are one-sided, at the policy's confidence.
    p: one-sided; that it is above the limit for primary and baseline, worse beyond tolerance (adjusted) for slices.
    """

    about: str
    name: str
    status: Status
    message: str
    examples: int | None = None
    candidate: float | None = None
    champion: float | None = None
    gain: float | None = None
    lower: float | None = None
    upper: float | None = None
    p: float | None = None
    limit: float | None = None
    method: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What the candidate's training looks like (diagnosis.py): a hint for a person, which decides nothing.

    train, test: the policy's metric on a sample of the training examples and on the test; None where not known.
    new_batches: those with examples to train on, none of which the champion was trained on.
    """

    looks: Looks
    message: str = ""  # one sentence, with the numbers and what to do; empty where nothing wrong is seen
    train: float | None = None
    train_examples: int = 0
    test: float | None = None
    epochs_run: int | None = None
    kept_epoch: int | None = None  # from 1
    stopped_early: bool | None = None
    new_batches: tuple[str, ...] = ()

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Diagnosis":
        """The diagnosis in a verdict.json."""
        return Diagnosis(**_known(Diagnosis, content) | {"new_batches": tuple(content.get("new_batches", ()))})


@dataclass(frozen=True)
class Verdict:
    """The gate's answer. `first`: there was no champion to beat."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    metric: str = ""
    confidence: float = 0.95
    first: bool = False
    diagnosis: Diagnosis | None = None

    @property
    def suspects_batch(self) -> bool:
        """Whether a person should ask if a batch is at fault: surely worse, data is new, the training looks sound."""
        worse = any(check.status == "fail" and check.about in {"primary", "class", "slice"} for check in self.checks)
        found = self.diagnosis
        return worse and (found is None or (bool(found.new_batches) and found.looks not in TRAINING_AT_FAULT))

    @property
    def promotes(self) -> bool:
        return self.outcome == "PROMOTE"

    @property
    def primary(self) -> Check | None:
        """The check that the decision rests on: against the champion, or the trivial baseline for a first model."""
        return next((check for check in self.checks if check.about in {"primary", "baseline"}), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps; an infinite bound (too few groups) becomes None."""
        plain: dict[str, Any] = finite_json(asdict(self))
        return plain

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Verdict":
        """The verdict in a verdict.json; keys that it has beside are ignored."""
        known = _known(Verdict, content)
        checks = tuple(Check(**_known(Check, _renamed(check))) for check in content["checks"])
        found = content.get("diagnosis")  # of a verdict of an older Ratchet: none
        diagnosis = Diagnosis.from_json(found) if found else None
        return Verdict(**{**known, "reasons": tuple(content["reasons"]), "checks": checks, "diagnosis": diagnosis})


def _known(schema: type[Any], content: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(schema)}
    return {key: value for key, value in content.items() if key in names}


def _renamed(check: dict[str, Any]) -> dict[str, Any]:
    """A check as it is written today, also of a verdict.json that was written before its words changed."""
    status = "info" if check["status"] == "told" else check["status"]
    return {**check, "status": status, "message": check.get("message", check.get("says", ""))}
