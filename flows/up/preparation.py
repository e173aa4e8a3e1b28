"""What is known of a run before it takes a slot, from git alone: was it judged before, is enough new to begin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.retraining.notify import recovered
from models.common.errors import RatchetError
from tasks.project.fingerprint import find_judgement, read_inputs
from tasks.project.new_data import new_data
from tasks.project.policy import WaitFor
from tasks.run_outcome import RunOutcome, unchanged_outcome


@dataclass(frozen=True)
class Preparation:
    """`state`: how the run ends right here, None where it has to be carried out, by the code of `commit`."""

    commit: str | None = None  # None: it is not known
    state: str | None = None
    message: str = ""
    name: str | None = None  # of the run
    outcome: RunOutcome | None = None


def prepare(root: Path, parameters: dict[str, Any], wait_for: WaitFor | None) -> Preparation:
    """Never raises: what cannot be found out here, the run itself will find, and say."""
    try:
        return _prepare(root, parameters, wait_for)
    except RatchetError:
        return Preparation()


def _prepare(root: Path, parameters: dict[str, Any], wait_for: WaitFor | None) -> Preparation:
    inputs = read_inputs(root, str(parameters["model"]), str(parameters.get("revision", "HEAD")))
    name = f"{inputs.model}@{inputs.data_version}"
    if parameters.get("force"):
        return Preparation(inputs.commit)
    if earlier := find_judgement(root, inputs.model, inputs.fingerprint):
        recovered(root, inputs.model)
        outcome = unchanged_outcome(root, inputs, earlier)
        return Preparation(inputs.commit, outcome.state, outcome.reasons[0], name, outcome)
    if wait_for and (wait_for.examples or wait_for.batches):
        new = new_data(root, inputs)
        if not new.recipe_changed and not _enough(new.batches, new.examples, wait_for):
            return Preparation(inputs.commit, "WAITING", _how_many(new.batches, new.examples, wait_for), name)
    return Preparation(inputs.commit)


def _enough(batches: int, examples: int, wait_for: WaitFor) -> bool:
    enough_batches = wait_for.batches is not None and batches >= wait_for.batches
    return enough_batches or (wait_for.examples is not None and examples >= wait_for.examples)


def _how_many(batches: int, examples: int, wait_for: WaitFor) -> str:
    counts = []
    if wait_for.examples:
        counts.append(f"{examples:,} of {wait_for.examples:,} new examples")
    if wait_for.batches:
        counts.append(f"{batches} of {wait_for.batches} new batches")
    return f"waits for more data: {', '.join(counts)} (schedule.wait_for)"
