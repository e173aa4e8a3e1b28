"""What happens to a judged candidate: saved as a DVC experiment, recorded as judged and, if it is better, promoted.

    save      artifacts declared, report and Bento into DVC, a DVC experiment   nothing in production knows it yet
    publish   bytes to the DVC remote, the experiment to the git remote         in a shared project
    record    the judgement's ref, with the version and stage tags if promoted  one transaction: all or nothing

Killed before the judgement is recorded, the old champion serves on and the next run starts over, on the stages that
DVC has cached already; killed after it, all is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from models.common.errors import PublishError, RatchetError
from tasks.gating.verdict import Verdict
from tasks.project.fingerprint import Inputs, count_judgements, judgement_ref
from tasks.project.locks import lock
from tasks.project.paths import home
from tasks.project.registry import Champion, create_refs, register_and_assign
from tasks.project.repository import check_identity, dvc, git, git_remote, is_shared
from tasks.project.trace import PROMOTED, trailers

STAGES = ("validate", "initial_weights", "train", "evaluate")


@dataclass(frozen=True)
class Candidate:
    """A saved candidate: a commit on top of its source commit, under `refs/exps`."""

    model: str
    name: str  # of the DVC experiment
    commit: str
    judgement_ref: str
    targets: tuple[str, ...]  # what DVC keeps of it


def candidate_name(root: Path, inputs: Inputs) -> str:
    """`digits-1a2b3c4d`, and `-2` for the second judgement of the same inputs."""
    number = count_judgements(root, inputs.model, inputs.fingerprint) + 1
    return f"{inputs.model}-{inputs.fingerprint[:8]}" + (f"-{number}" if number > 1 else "")


def save(tree: Path, inputs: Inputs, verdict: Verdict, judged_against: Champion | None) -> Candidate:
    """Saves what is in the workspace as a candidate, also one that was held or rejected."""
    model = inputs.model
    check_identity(tree)
    name = candidate_name(tree, inputs)
    folder = f"artifacts/{model}"
    files = [path for path in (f"{folder}/report.html", f"{folder}/{model}.bento") if (tree / path).exists()]
    _declare_artifacts(tree, model, bento=len(files) == 2)
    untracked = ["dvc.lock", f"{folder}/verdict.json", *(f"{path}.dvc" for path in files)]
    with lock(home(tree), "project"):  # until a ref names it, it would be garbage
        dvc(tree, "add", "--quiet", *files)
        commit = _save_experiment(tree, name, untracked, _message(inputs, verdict, judged_against))
    return Candidate(
        model=model,
        name=name,
        commit=commit,
        judgement_ref=judgement_ref(model, inputs.fingerprint, count_judgements(tree, model, inputs.fingerprint) + 1),
        targets=(*(f"{stage}@{model}" for stage in STAGES), *(f"{path}.dvc" for path in files)),
    )


def _save_experiment(tree: Path, name: str, untracked: Sequence[str], message: str) -> str:
    """The commit that `dvc exp save` would make of what was just reproduced, in a twentieth of its time."""
    baseline = git(tree, "rev-parse", "HEAD")
    git(tree, "add", "--update")
    git(tree, "add", "--force", "--", *untracked)
    commit = git(tree, "commit-tree", "-p", baseline, git(tree, "write-tree"), text=message)
    git(tree, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", commit)
    return commit


def publish_candidate(tree: Path, candidate: Candidate) -> bool:
    """Pushes a candidate's bytes, then its commit; False where nothing is shared. PublishError when refused."""
    if not is_shared(tree):
        return False
    data = [str(path.relative_to(tree)) for path in (tree / "data" / candidate.model).glob("*.dvc")]
    remote = str(git_remote(tree))
    try:
        dvc(tree, "push", *candidate.targets, *data)
        refs = git(tree, "for-each-ref", "--format=%(refname)", f"--points-at={candidate.commit}", "refs/exps").split()
        git(tree, "push", "--quiet", "--force", remote, *(f"{ref}:{ref}" for ref in refs if "/exec/" not in ref))
    except RatchetError as error:
        raise PublishError(
            f"Candidate {candidate.name} is saved in this clone but could not be published, so nothing was promoted:"
            f" {error}. Run it again when the remotes take it: ratchet retrain {candidate.model}"
        ) from None
    return True


def record_judgement(root: Path, candidate: Candidate) -> None:
    """Records a candidate as judged and not promoted. LostRaceError when someone else judged the same inputs first."""
    create_refs(root, {candidate.judgement_ref: candidate.commit}, _already_judged(candidate))


def promote(root: Path, candidate: Candidate, judged_against: Champion | None) -> Champion:
    """Records a candidate as judged and puts it in production, in one transaction.

    LostRaceError when the champion is no longer the one it was judged against; nothing is recorded then, so that the
    next run judges it against the new one.
    """
    extra_refs = {candidate.judgement_ref: candidate.commit}
    said = trailers(root, PROMOTED)
    return register_and_assign(root, candidate.model, candidate.commit, judged_against, extra_refs, said)


def _already_judged(candidate: Candidate) -> str:
    return f"{candidate.model} was judged from the same inputs by someone else in the meantime: ratchet history"


def _declare_artifacts(tree: Path, model: str, bento: bool) -> None:
    """Names the candidate's files in its dvc.yaml, so that `dvc artifacts get` finds them; main's is not edited."""
    yaml = YAML()
    path = tree / "dvc.yaml"
    content: dict[str, Any] = yaml.load(path)
    kind = str(YAML(typ="safe").load(tree / "params.yaml")["models"][model]["kind"])
    declared = content.setdefault("artifacts", {})
    folder = f"artifacts/{model}"
    declared[f"{model}-program"] = {
        "path": f"{folder}/program",
        "type": "onnx",
        "desc": f"The program of {model}: program.onnx, and program.json with its inputs and outputs",
        "labels": [kind, "program"],
    }
    if bento:
        declared[model] = {
            "path": f"{folder}/{model}.bento",
            "type": "bento",
            "desc": f"The tested service of {model}; run it with: bentoml serve, or ratchet serve {model}",
            "labels": [kind, "service"],
        }
    yaml.dump(content, path)


def _message(inputs: Inputs, verdict: Verdict, judged_against: Champion | None) -> str:
    reason = verdict.reasons[0] if verdict.reasons else ""
    trailers = {
        "Model": inputs.model,
        "Verdict": verdict.outcome,
        "Data-Version": inputs.data_version,
        "Judged-Against": f"{judged_against.version} {judged_against.commit}" if judged_against else "none",
        "Made-From": inputs.commit,
        "Fingerprint": inputs.fingerprint,
    }
    return f"{verdict.outcome} {inputs.model}: {reason}\n\n" + "\n".join(f"{k}: {v}" for k, v in trailers.items())


def attach_bento(tree: Path, model: str, message: str) -> str:
    """Commits artifacts/<model>/<model>.bento on top of the candidate that is checked out; gives that commit."""
    bento = f"artifacts/{model}/{model}.bento"
    _declare_artifacts(tree, model, bento=True)
    dvc(tree, "add", "--quiet", bento)
    git(tree, "add", "--force", f"{bento}.dvc", "dvc.yaml")
    git(tree, "commit", "--quiet", "--no-verify", f"--message={message}")
    return git(tree, "rev-parse", "HEAD")
