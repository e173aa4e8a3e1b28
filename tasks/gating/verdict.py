"""The gate's verdict: the outcome, the reasons in plain sentences, and every check with its numbers."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from tasks.project.finite_json import finite_json

Outcome = Literal["PROMOTE", "HOLD", "REJECT", "ERROR"]
Status = Literal["pass", "fail", "undecided", "info"]  # info: worth knowing, decides nothing


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
class Verdict:
    """The gate's answer. `first`: there was no champion to beat."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    metric: str = ""
    confidence: float = 0.95
    first: bool = False

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
        return Verdict(**{**known, "reasons": tuple(content["reasons"]), "checks": checks})


def _known(schema: type[Any], content: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(schema)}
    return {key: value for key, value in content.items() if key in names}


def _renamed(check: dict[str, Any]) -> dict[str, Any]:
    """A check as it is written today, also of a verdict.json that was written before its words changed."""
    status = "info" if check["status"] == "told" else check["status"]
    return {**check, "status": status, "message": check.get("message", check.get("says", ""))}
