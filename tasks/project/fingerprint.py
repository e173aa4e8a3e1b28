"""All inputs of a model's candidate as one hash: was this judged before?

It covers the data, the params, the locked environment, the code that trains (what the DVC stages depend on) and the
code that judges. A change in what only judges makes another fingerprint and leaves DVC's stages cached: the model is
judged again and not trained again. Code that only presents results is left out.

Reads git objects only, no file of the checkout and none of the data, so the answer takes a fraction of a second.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.common.data.hashing import version_of_batches
from models.common.errors import RatchetError, UserError
from tasks.project.approvals import is_judgement, waiting
from tasks.project.registry import synchronise
from tasks.project.repository import git, git_remote

# What a verdict and a Bento depend on, beside what the stages depend on; tests/test_structure.py keeps it complete.
JUDGING_PATHS = (
    "tasks/evaluate.py",
    "tasks/gating",
    "tasks/judge.py",
    "tasks/package.py",
    "tasks/packaging/build.py",
    "tasks/packaging/smoke_test.py",
    "tasks/project/command.py",
    "tasks/project/disk.py",
    "tasks/project/finite_json.py",
    "tasks/project/git_locks.py",
    "tasks/project/locks.py",
    "tasks/project/params.py",
    "tasks/project/paths.py",
    "tasks/project/policy.py",
    "tasks/project/processes.py",
    "tasks/project/reasons.py",
    "tasks/project/repository.py",
    "tasks/serve.py",
    "models/common/errors.py",
    "models/common/imports.py",
    "models/common/kind.py",
    "models/common/params.py",
    "models/common/audio",
    "models/common/classification",
    "models/common/data",
    "models/common/image",
    "models/common/objects",
    "models/common/program",
    "models/common/segmentation",
    "models/common/transcripts",
    "models/${item.kind}/__init__.py",
    "models/${item.kind}/dataset.py",
    "models/${item.kind}/params.py",
    "models/${item.kind}/predictor.py",
    "models/${item.kind}/preprocessing.py",
    "models/${item.kind}/scoring.py",
)
PRESENTATION_ONLY = re.compile(
    r"models/common/reporting/|models/\w+/report\.py$|tasks/report\b|tasks/validation/data_docs|flows/"
)
IGNORED_SECTIONS = ("schedule", "serve")  # sections of params.yaml that change neither the candidate nor its verdict


@dataclass(frozen=True)
class Inputs:
    """A model's inputs at one commit."""

    model: str
    commit: str
    data_version: str  # as models.common.data.batches.data_version gives it
    batches: int
    fingerprint: str  # SHA-256, hex
    recipe: str  # the same without the data


def read_inputs(root: Path, model: str, revision: str = "HEAD") -> Inputs:
    """The inputs of a model at a revision. UserError for an unknown revision or model, or a model without data."""
    commit = resolve(root, revision)
    section = _section(root, commit, model)
    pointers = _pointers(root, commit, model)
    if not pointers:
        raise UserError(f"{model} has no data yet at {revision}. Add some: ratchet add {model} SOURCE")
    stages = yaml.safe_load(git(root, "show", f"{commit}:dvc.yaml"))["stages"]
    files = _files(root, commit, ["dvc.yaml", *sorted(_dependencies(stages, model, section))])
    params = {key: _without_approval(value) for key, value in section.items() if key not in IGNORED_SECTIONS}
    code = [line for line in files if not line.partition("\t")[2].startswith(f"data/{model}/")]
    return Inputs(
        model=model,
        commit=commit,
        data_version=version_of_batches(pointers),
        batches=len(pointers),
        fingerprint=_digest(files, params),
        recipe=_digest(code, params),
    )


def _digest(files: Sequence[str], params: dict[str, Any]) -> str:
    content = "\n".join(files) + f"\n{json.dumps(params, sort_keys=True)}"
    return hashlib.sha256(content.encode()).hexdigest()


def find_judgement(root: Path, model: str, fingerprint: str) -> str | None:
    """The newest candidate (a commit) that was judged from these very inputs, whatever the verdict, or None.

    In a shared project the remote is asked where this clone knows of none, or that one awaits approval: someone may
    have decided on it. RegistryError when that cannot be done.
    """
    found = find_local_judgement(root, model, fingerprint)
    candidate = waiting(root, model) if found else None
    if found and (candidate is None or candidate.commit != found):
        return found
    synchronise(root, model)
    return find_local_judgement(root, model, fingerprint)


def find_local_judgement(root: Path, model: str, fingerprint: str) -> str | None:
    """The same from this clone's refs alone, which takes no network.

    Not one that awaits approval and was judged against a champion that is none any more: it is to be judged again.
    """
    refs = git(root, "for-each-ref", "--format=%(objectname)", f"{judgement_ref(model, fingerprint)}*").split()
    if not refs:
        return None
    candidate = waiting(root, model)
    is_outdated = candidate is not None and candidate.commit == refs[-1] and candidate.is_outdated
    return None if is_outdated else refs[-1]


def judged_candidates(root: Path, model: str) -> dict[str, str]:
    """Commit of every candidate that this clone knows, by its name: digits-1a2b3c4d, digits-1a2b3c4d-2."""
    listing = git(root, "for-each-ref", "--format=%(refname)%09%(objectname)", f"refs/ratchet/{model}/")
    rows = [line.split("\t") for line in listing.splitlines()]
    return {candidate_of(model, ref): commit for ref, commit in rows if is_judgement(ref)}


def candidate_of(model: str, ref: str) -> str:
    """The candidate's name, from the ref of its judgement."""
    fingerprint, _, attempt = ref.rpartition("/")[2].partition("-")
    return f"{model}-{fingerprint[:8]}" + (f"-{int(attempt)}" if attempt else "")


def judgement_ref(model: str, fingerprint: str, attempt: int = 1) -> str:
    """The ref that points to the candidate; judging the same inputs again (`--force`) makes a further one."""
    return f"refs/ratchet/{model}/{fingerprint}" + (f"-{attempt:03d}" if attempt > 1 else "")


def count_judgements(root: Path, model: str, fingerprint: str) -> int:
    """How often these inputs were judged."""
    return len(git(root, "for-each-ref", "--format=%(refname)", f"{judgement_ref(model, fingerprint)}*").split())


def resolve(root: Path, revision: str) -> str:
    """The commit that a revision names; one on the shared remote (`origin/main`) is fetched first."""
    remote = git_remote(root)
    if remote and revision.startswith(f"{remote}/"):
        git(root, "fetch", "--quiet", "--no-tags", remote)
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except RatchetError:
        raise UserError(f"Unknown revision '{revision}'. Name a commit, branch or tag: git log --oneline") from None


def models_at(root: Path, commit: str) -> dict[str, Any]:
    """The sections under `models:` in params.yaml at a commit."""
    try:
        content = yaml.safe_load(git(root, "show", f"{commit}:params.yaml"))
    except RatchetError:
        raise UserError(f"No params.yaml in commit {commit[:10]}. Run ratchet in a Ratchet project.") from None
    except yaml.YAMLError as error:
        raise UserError(f"params.yaml is not valid YAML: {' '.join(str(error).split())}") from None
    models = content.get("models") if isinstance(content, dict) else None
    return models if isinstance(models, dict) else {}


def _section(root: Path, commit: str, model: str) -> dict[str, Any]:
    models = models_at(root, commit)
    section = models.get(model)
    if not isinstance(section, dict) or "kind" not in section:
        known = ", ".join(map(str, models)) or "none yet"
        raise UserError(
            f"Unknown model '{model}'. Models in params.yaml at {commit[:10]}: {known}."
            f" Add a section models.{model} and commit it to define it."
        )
    return section


def _without_approval(section: Any) -> Any:
    """A section of a model; who approves changes neither the candidate nor its verdict."""
    return {key: value for key, value in section.items() if key != "approval"} if isinstance(section, dict) else section


def _pointers(root: Path, commit: str, model: str) -> list[str]:
    """MD5 of every batch, from the `.dvc` files at the commit."""
    listing = git(root, "ls-tree", "--format=%(objectname) %(path)", commit, "--", f"data/{model}/")
    ids = [line.split(" ", 1)[0] for line in listing.splitlines() if line.endswith(".parquet.dvc")]
    if not ids:
        return []
    content = git(root, "cat-file", "--batch=", text="\n".join(ids) + "\n")
    return re.findall(r"\bmd5: '?([0-9a-f]{32})", content)  # quoted where YAML would read a number


def _dependencies(stages: dict[str, Any], model: str, section: dict[str, Any]) -> set[str]:
    """Paths that the model is trained and judged by; outputs of stages are not in git and drop out by themselves."""
    paths = set()
    stage_dependencies = [
        dependency for stage in stages.values() for dependency in stage.get("do", stage).get("deps", [])
    ]
    for dependency in (*stage_dependencies, *JUDGING_PATHS):
        path = str(dependency).replace("${key}", model)
        for key, value in section.items():
            path = path.replace(f"${{item.{key}}}", str(value))
        paths.add(path)
    return paths


def _files(root: Path, commit: str, paths: Sequence[str]) -> list[str]:
    """Mode, hash and path of every file in these paths at the commit, but for presentation code."""
    listing = git(root, "ls-tree", "-r", commit, "--", *paths).splitlines()
    return [line for line in listing if not PRESENTATION_ONLY.match(line.partition("\t")[2])]
