"""What a person wants to look at after a run, copied out of the workspace before it is removed.

artifacts/<model>/runs/<candidate>/{report.html, verdict.json, data_docs/}     git-ignored, in the main checkout
artifacts/<model>/runs/latest -> <candidate>
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.gating.verdict import Verdict
from tasks.project.approvals import DECLINED, WAITING, decisions
from tasks.project.fingerprint import Inputs
from tasks.project.paths import main_checkout
from tasks.project.registry import Champion, champion_among, tags
from tasks.project.repository import git

if TYPE_CHECKING:
    from tasks.promote import Candidate

AWAITING_APPROVAL = "AWAITING_APPROVAL"
STATES = {"PROMOTE": "PROMOTED", "HOLD": "HELD", "REJECT": "REJECTED"}  # verdict: how the run ends


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended. `state`: PROMOTED, HELD, REJECTED, AWAITING_APPROVAL, UNCHANGED; BLOCKED and ERROR fail."""

    model: str
    state: str
    reasons: tuple[str, ...] = ()
    version: str | None = None  # in production after the run
    previous: str | None = None  # in production before it
    data_version: str | None = None
    candidate: str | None = None  # name of the DVC experiment
    commit: str | None = None  # of the candidate
    report: Path | None = None
    data_docs: Path | None = None
    seconds: float = 0.0
    steps: tuple[tuple[str, float], ...] = ()  # name and seconds of each
    notes: tuple[str, ...] = ()
    suspects_batch: bool = False  # surely worse with new data, and the training looks sound

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dumps."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def judged_outcome(
    inputs: Inputs,
    candidate: "Candidate",
    verdict: Verdict,
    folder: Path,
    old: Champion | None,
    promoted: Champion | None,
) -> RunOutcome:
    """How a run that reached a verdict ended; `promoted`: the champion that it made, if it made one."""
    new = promoted or old
    return RunOutcome(
        model=inputs.model,
        state=AWAITING_APPROVAL if verdict.promotes and not promoted else STATES[verdict.outcome],
        reasons=verdict.reasons,
        version=new.version if new else None,
        previous=old.version if old else None,
        data_version=inputs.data_version,
        candidate=candidate.name,
        commit=candidate.commit,
        report=folder / "report.html",
        data_docs=folder / "data_docs/index.html",
        suspects_batch=verdict.suspects_batch,
    )


def unchanged_outcome(root: Path, inputs: Inputs, candidate: str) -> RunOutcome:
    """How a run ends whose inputs were judged before, into this candidate (a commit)."""
    current = champion_among(tags(root, inputs.model), inputs.model)
    return RunOutcome(
        model=inputs.model,
        state="UNCHANGED",
        reasons=(_why_unchanged(root, inputs.model, candidate),),
        version=current.version if current else None,
        previous=current.version if current else None,
        data_version=inputs.data_version,
        commit=candidate,
    )


def _why_unchanged(root: Path, model: str, candidate: str) -> str:
    log = git(root, "log", "-1", "--format=%(trailers:key=Verdict,valueonly)%x00%ar", candidate)
    verdict, when = (part.strip() for part in log.split("\0"))
    decision = decisions(root, model).get(candidate)
    if decision and decision.action == WAITING:
        name = decision.trailers["Candidate"]
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(decision.when))
        return (
            f"nothing new since {when}: {name}, from the same inputs, awaits approval since {since}:"
            f" ratchet approve {model}; or: ratchet decline {model} --why 'TEXT'"
        )
    state = decision.action if decision and decision.action == DECLINED else STATES.get(verdict, verdict)
    return (
        f"nothing new since {when}: the same data, code, params and environment were {state} then; --force judges again"
    )


def copy_results(tree: Path, model: str, name: str) -> Path:
    """Copies what there is of report, verdict and Data Docs to the main checkout; gives that folder."""
    source = tree / "artifacts" / model
    runs = main_checkout(tree) / "artifacts" / model / "runs"
    target = runs / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in ("report.html", "verdict.json", "training/history.csv", "training/summary.json"):
        if (source / file).exists():
            shutil.copyfile(source / file, target / Path(file).name)
    if (source / "validation/data_docs").exists():
        shutil.copytree(source / "validation/data_docs", target / "data_docs")
    _update_latest_link(runs, name)
    return target


def report_of(root: Path, model: str, name: str) -> Path | None:
    """The candidate's report in this checkout; None where it was made elsewhere."""
    path = main_checkout(root) / "artifacts" / model / "runs" / name / "report.html"
    return path if path.exists() else None


def measured_metrics(folder: Path) -> dict[str, dict[str, float] | None]:
    """The metrics of candidate and champion in a verdict.json that was copied here."""
    metrics: dict[str, dict[str, float] | None] = json.loads((folder / "verdict.json").read_text())["metrics"]
    return metrics


def _update_latest_link(runs: Path, name: str) -> None:
    for unfinished in runs.glob(".latest-*"):  # of runs that were killed right here; a model has one run at a time
        unfinished.unlink()
    link = runs / f".latest-{name}"
    link.symlink_to(name)
    link.replace(runs / "latest")
