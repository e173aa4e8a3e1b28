"""Runs a stage, and lets no damaged byte out of the DVC cache: what DVC linked from there is compared with its hash.

DVC takes a protected file in its cache for what its name says. A bit that flipped there would be trained on, judged or
packaged; here it is fetched again, or made again by running the stage, or refused.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from models.common.errors import RatchetError
from tasks.project import stages
from tasks.project.outputs import digest_of, forget
from tasks.project.repository import dvc, dvc_remote
from tasks.project.stages import LineHandler


@dataclass(frozen=True)
class Output:
    """What DVC put into a worktree: a batch or an output of a stage."""

    path: str  # relative to the worktree
    digest: str
    target: str  # DVC's name of who makes it
    is_batch: bool = False


def reproduce(tree: Path, stage: str, model: str, on_line: LineHandler) -> bool:
    """`stages.reproduce`, and its bytes (of validation: of the batches, too) are those that DVC's hashes name.

    RatchetError naming the file where a batch is damaged and the remote has no better one.
    """
    ran = stages.reproduce(tree, stage, model, on_line)
    outputs = [*(batches(tree, model) if stage == "validate" else []), *([] if ran else outputs_of(tree, stage, model))]
    damaged = [output for output in outputs if is_damaged(tree, output)]
    if not damaged:
        return ran
    for output in damaged:
        on_line(f"{output.path} is damaged in the DVC cache; fetching it again", False)
    if lost := fetch_again(tree, damaged):
        _refuse_batches(lost)
        on_line(f"The remote has no undamaged {lost[0].path}; running {stage} again", False)
    return stages.reproduce(tree, stage, model, on_line)


def batches(tree: Path, model: str) -> list[Output]:
    """The batches of a model, by their pointers."""
    return [_batch(tree, pointer) for pointer in sorted((tree / "data" / model).glob("*.dvc"))]


def outputs_of(tree: Path, stage: str, model: str) -> list[Output]:
    """What a stage made, by dvc.lock."""
    lock = yaml.safe_load((tree / "dvc.lock").read_text())["stages"]
    target = f"{stage}@{model}"
    return [Output(str(out["path"]), str(out["md5"]), target) for out in lock[target]["outs"]]


def is_damaged(tree: Path, output: Output) -> bool:
    """Whether its bytes are there and are not those that its hash names."""
    path = tree / output.path
    return path.exists() and digest_of(path) != output.digest


def fetch_again(tree: Path, damaged: list[Output]) -> list[Output]:
    """Takes these out of worktree and cache and pulls them from the remote; those that are not intact even then."""
    for output in damaged:
        _take_out(tree, output)
    if dvc_remote(tree):
        with suppress(RatchetError):  # not on the remote either, or it does not answer
            dvc(tree, "pull", "--quiet", *sorted({output.target for output in damaged}))
    lost = [output for output in damaged if is_damaged(tree, output) or not (tree / output.path).exists()]
    for output in lost:
        _take_out(tree, output)
    return lost


def _batch(tree: Path, pointer: Path) -> Output:
    out = yaml.safe_load(pointer.read_text())["outs"][0]
    folder = pointer.parent.relative_to(tree)
    return Output(f"{folder}/{out['path']}", str(out["md5"]), str(pointer.relative_to(tree)), is_batch=True)


def _take_out(tree: Path, output: Output) -> None:
    forget(tree, output.digest)
    path = tree / output.path
    if path.is_dir():
        for file in path.rglob("*"):
            if not file.is_dir():
                file.unlink()  # a link into the cache
    else:
        path.unlink(missing_ok=True)


def _refuse_batches(lost: list[Output]) -> None:
    for output in lost:
        if output.is_batch:
            raise RatchetError(
                f"{output.path} is damaged, and no undamaged copy is on the DVC remote (MD5 {output.digest})."
                f" Nothing was trained on it. Restore it: dvc push {output.target} in a clone that has it, after"
                " deleting it on the remote; or take it out: ratchet remove"
            )
