"""Stage `initial_weights`: provides the weights that training starts from. `python -m tasks.initial_weights MODEL`

An input that DVC sees: else its cache might give back a training that began from another champion. Writes
artifacts/<model>/initial_weights: origin.json, and weights.pt where params say `champion` or name a file. Runs each
time, as only the registry knows whether the champion is still the same; so it imports nothing that takes long.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from models.common.errors import RatchetError, UserError
from tasks.project import command, registry
from tasks.project.params import Model, load_model


def initial_weights(root: Path, name: str) -> None:
    """Writes the folder anew. UserError where params name a file that is not there."""
    model = load_model(root, name)
    out = root / "artifacts" / name / "initial_weights"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    starts_from = _provide_weights(root, model, out / "weights.pt")
    origin = {"weights": model.train.weights, "starts_from": starts_from}
    (out / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    print(f"{name}: training starts from {starts_from}")


def _provide_weights(root: Path, model: Model, into: Path) -> str:
    """Copies the weights, if params name any; gives what training starts from, in a word."""
    weights = model.train.weights
    if weights == "champion" and _copy_champion(root, model.name, into):
        return "the champion"
    weights = model.train.starting_weights(has_initial=False)
    if weights == "none":
        return "nothing"
    if weights in model.train.WEIGHT_SOURCES:
        return weights  # the kind fetches them itself
    path = root / weights
    if not path.is_file():
        allowed = ", ".join(["auto", "none", *model.train.WEIGHT_SOURCES, "champion"])
        raise UserError(
            f"params.yaml: models.{model.name}.train.weights is '{weights}', and there is no file {path}."
            f" Allowed: {allowed}, or the path of a weights.pt"
        )
    shutil.copyfile(path, into)
    return weights


def _copy_champion(root: Path, name: str, into: Path) -> bool:
    """The weights of the champion that a run has fetched already, else of the registry's; False where there is none."""
    fetched = root / "artifacts" / name / "champion"
    if fetched.exists():
        _copy_weights(fetched / "training", into)
        return True
    champion = registry.champion(root, name)
    if champion is None:
        print(f"warning: {name} has no champion to start from yet", file=sys.stderr)
        return False
    with tempfile.TemporaryDirectory() as folder:
        _copy_weights(
            registry.fetch(root, champion.commit, f"artifacts/{name}/training", Path(folder) / "training"), into
        )
    return True


def _copy_weights(training: Path, into: Path) -> None:
    if not (training / "weights.pt").is_file():
        raise RatchetError(f"The champion's {training} has no weights.pt to start from. Set other train.weights")
    shutil.copyfile(training / "weights.pt", into)


if __name__ == "__main__":
    command.run(initial_weights)
