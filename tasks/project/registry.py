"""The registry: git tags in GTO's format. `digits@v1.2.0` is a version, `digits#production#7` puts one in production.

Anyone with git, GTO or DVC reads it without Ratchet. Each promotion also tags `<model>-program`, the bare program, so
`dvc artifacts get REPO digits --stage production` gives the Bento and `… digits-program …` the ONNX file. Tags made
with GTO's own command count the same, its cancelling ones (`!`) too.

In a shared project the git remote is the registry and this clone a copy. Tags are created, never moved, so creating
the next stage tag is the compare-and-swap: whoever creates number N + 1 first has promoted.
"""

import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import LostRaceError, PublishError, RatchetError, RegistryError, UserError
from tasks.project.outputs import fetch_output
from tasks.project.repository import check_identity, git, git_remote, is_shared

STAGE = "production"
REF_CONFLICTS = ("already exists", "stale info", "cannot lock ref", "failed to update ref", "incorrect old value")
SEMVER = r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:[-+][0-9A-Za-z.+-]+)?"


@dataclass(frozen=True)
class Champion:
    """What is in production."""

    model: str
    version: str  # "v1.2.0"; the commit where a person put an unregistered one in production
    commit: str  # the candidate
    number: int  # counter of its stage tag
    since: int = 0  # Unix time of that tag, s


@dataclass(frozen=True)
class Tag:
    """One annotated tag of a model. `version` and `stage` exclude each other; neither: the model is deprecated."""

    name: str
    commit: str
    time: int  # Unix time, s
    counter: int = 0
    version: str | None = None
    stage: str | None = None
    cancels: bool = False


def champion(root: Path, model: str) -> Champion | None:
    """What is in production, None where nothing ever was or all was withdrawn. RegistryError when it is unknown.

    In a shared project the remote is asked. Read as `gto show` reads: the newest assignment that was not taken back,
    of a version that was not deregistered.
    """
    synchronise(root, model)
    return champion_among(tags(root, model), model)


def champion_among(model_tags: Sequence[Tag], model: str) -> Champion | None:
    """The champion by these tags, oldest first."""
    if model_tags and not (model_tags[-1].version or model_tags[-1].stage):  # deprecated
        return None
    versions_by_commit = _versions(model_tags)
    withdrawn = {commit for commit, version in versions_by_commit.items() if version is None}
    assigned = {tag.commit: tag for tag in model_tags if tag.stage == STAGE}  # the last one of each commit counts
    active = [tag for commit, tag in assigned.items() if not tag.cancels and commit not in withdrawn]
    if not active:
        return None
    newest = max(active, key=_sort_key)
    version = versions_by_commit.get(newest.commit) or newest.commit
    return Champion(model, version, newest.commit, newest.counter, newest.time)


def tags(root: Path, model: str) -> list[Tag]:
    """The model's annotated tags in this clone, oldest first. RegistryError when they cannot be read."""
    ref_format = "%(objecttype)%09%(*objectname)%09%(taggerdate:unix)%09%(refname:lstrip=2)"
    try:
        listing = git(root, "for-each-ref", f"--format={ref_format}", *_tag_patterns(model))
    except RatchetError as error:
        raise RegistryError(f"The registry's tags cannot be read: {error}") from None
    rows = [line.split("\t") for line in listing.splitlines()]
    parsed = [_parse_tag(model, name, commit, int(when)) for kind, commit, when, name in rows if kind == "tag"]
    return sorted((tag for tag in parsed if tag), key=_sort_key)


def versions(root: Path, model: str) -> dict[str, str]:
    """Version of each candidate (by commit) that was ever promoted in this clone, also of one withdrawn since."""
    return {tag.commit: tag.version for tag in tags(root, model) if tag.version and not tag.cancels}


def synchronise(root: Path, model: str) -> None:
    """Fetches the remote registry's tags and verdicts of a model; nothing to do where nothing is shared.

    RegistryError when the remote cannot be reached, or this clone has tags that the remote has not.
    """
    if not is_shared(root):
        return
    remote = str(git_remote(root))
    patterns = [
        *(pattern for name in _artifact_names(model) for pattern in _tag_patterns(name)),
        f"refs/ratchet/{model}/*",
    ]
    try:
        local = _local_refs(root, patterns)  # read first, so that no tag pushed meanwhile counts as differing
        published = _parse_refs(git(root, "ls-remote", "--refs", remote, *patterns))
        missing = [ref for ref in published if ref not in local]
        if missing:
            git(root, "fetch", "--quiet", "--no-tags", remote, *(f"{ref}:{ref}" for ref in missing))
    except RatchetError as error:
        raise RegistryError(f"The registry on '{remote}' cannot be read, so the champion is unknown: {error}") from None
    differing = [ref for ref in local if ref.startswith("refs/tags/") and published.get(ref) != local[ref]]
    if differing:
        name = differing[0].removeprefix("refs/tags/")
        raise RegistryError(
            f"Tag {name} of this clone is not the one on '{remote}', so the champion is unknown."
            f" Publish it: git push {remote} 'refs/tags/{name}'; or drop it: git tag --delete '{name}'"
        )


def next_version(root: Path, model: str) -> str:
    """The version that the next promotion gets: a minor step up from the highest there ever was."""
    numbers = [_semver(tag.version) for tag in tags(root, model) if tag.version]
    if not numbers:
        return "v1.0.0"
    major, minor, _ = max(numbers)
    return f"v{major}.{minor + 1}.0"


def register_and_assign(
    root: Path,
    model: str,
    commit: str,
    judged_against: Champion | None,
    extra_refs: Mapping[str, str] | None = None,
    trailers: str = "",
) -> Champion:
    """Puts a candidate in production as the next version, if the champion is still the one it was judged against.

    `extra_refs` (ref: commit) are created in the same transaction. `trailers` (trace.py) end the tags' messages.
    LostRaceError when another promotion came first, RegistryError when the remote cannot be reached; nothing is changed
    then, here or there.
    """
    current = champion(root, model)
    model_tags = tags(root, model)
    promoted = champion_among([tag for tag in model_tags if tag.commit == commit], model)
    if promoted and extra_refs and _local_refs(root, extra_refs) == extra_refs:
        return promoted  # an earlier push succeeded, and only its answer was lost
    _check_champion_unchanged(current, judged_against, model)
    version = _versions(model_tags).get(commit) or next_version(root, model)
    number = 1 + max((tag.counter for name in _artifact_names(model) for tag in tags(root, name)), default=0)
    timestamp = max([int(time.time()) - 1, *(tag.time + 1 for tag in model_tags)])
    new: dict[str, str] = dict(extra_refs or {})
    for name in _artifact_names(model):
        if not any(tag.version and tag.commit == commit for tag in tags(root, name)):
            new |= _new_tag(root, f"{name}@{version}", commit, timestamp, f"{name} {version}{trailers}")
        # a second later: GTO and DVC sort by tag time, and the version must exist before its stage
        message = f"{name} {version} to {STAGE}{trailers}"
        new |= _new_tag(root, f"{name}#{STAGE}#{number}", commit, timestamp + 1, message)
    create_refs(root, new, f"{model} was promoted by someone else in the meantime. Retrain: ratchet retrain {model}")
    return Champion(model, version, commit, number, timestamp + 1)


def rollback(root: Path, model: str, to_version: str | None = None, trailers: str = "") -> Champion:
    """Puts an earlier version back in production, or the one named (also a later one), by a new stage tag.

    Without `to_version`: the highest version below today's. UserError where there is none such. `trailers` (trace.py)
    end the tag's message.
    """
    current = champion(root, model)
    if current is None:
        raise UserError(
            f"{model} has nothing in production yet, so nothing to go back to. Start: ratchet retrain {model}"
        )
    registered = {version: commit for commit, version in _versions(tags(root, model)).items() if version}
    target = _previous_version(current, registered) if to_version is None else f"v{to_version.removeprefix('v')}"
    if target not in registered:
        raise UserError(f"{model} has no version {target}. Versions: {', '.join(sorted(registered, key=_semver))}")
    if target == current.version:
        raise UserError(f"{model} {target} is already in production")
    return register_and_assign(root, model, registered[target], current, trailers=trailers)


def create_refs(root: Path, new: Mapping[str, str], conflict: str) -> None:
    """Creates refs, all or none: on the remote first where the project is shared, then here.

    A ref that exists already with this very value is success. LostRaceError with `conflict` when one has another
    value; PublishError when the remote refuses for another reason.
    """
    if is_shared(root):
        _push_refs(root, str(git_remote(root)), new, conflict)
    _write_refs(root, new, conflict)


def fetch(root: Path, commit: str, path: str, into: Path) -> Path:
    """Copies one DVC-tracked output of a candidate (`artifacts/digits/program`) to `into`; see outputs.py."""
    return fetch_output(root, commit, path, into)


def fetch_champion(root: Path, model: str, into: Path) -> Champion | None:
    """The champion, its program and training copied to `into/program` and `into/training`; None: no champion yet."""
    current = champion(root, model)
    if current is None:
        return None
    shutil.rmtree(into, ignore_errors=True)
    for part in ("program", "training"):
        fetch(root, current.commit, f"artifacts/{model}/{part}", into / part)
    return current


def _push_refs(root: Path, remote: str, new: Mapping[str, str], conflict: str) -> None:
    leases = [f"--force-with-lease={ref}:" for ref in new]  # an empty expectation: it must not exist yet
    try:
        git(root, "push", "--quiet", "--atomic", *leases, remote, *(f"{value}:{ref}" for ref, value in new.items()))
    except RatchetError as error:
        if _is_on_remote(root, remote, new):
            return
        if any(word in str(error) for word in REF_CONFLICTS):
            raise LostRaceError(conflict) from None
        raise PublishError(
            f"'{remote}' did not take {', '.join(ref.split('/', 2)[2] for ref in new)}, so nothing changed: {error}."
            f" Check your rights there (git push --dry-run {remote}) and run it again"
        ) from None


def _write_refs(root: Path, new: Mapping[str, str], conflict: str) -> None:
    """Creates those that are not here yet; whatever synchronises this clone meanwhile fetches what was pushed too."""
    last_error: RatchetError | None = None
    for _ in range(len(new) + 1):  # a fetch writes ref by ref: each round finds at least one more of them here
        local = _local_refs(root, new)
        if any(new[ref] != value for ref, value in local.items()):
            raise LostRaceError(conflict)
        try:
            git(root, "update-ref", "--stdin", text="".join(f"create {ref} {new[ref]}\n" for ref in new.keys() - local))
            return
        except RatchetError as error:
            last_error = error
            if not any(word in str(error) for word in REF_CONFLICTS):
                break
    raise RegistryError(f"The registry cannot be written: {last_error}")


def _is_on_remote(root: Path, remote: str, new: Mapping[str, str]) -> bool:
    """Whether the remote has all these refs although a push of them failed: only its answer was lost."""
    try:
        return _parse_refs(git(root, "ls-remote", "--refs", remote, *new)) == new
    except RatchetError:
        return False


def _check_champion_unchanged(current: Champion | None, judged_against: Champion | None, model: str) -> None:
    expected = judged_against and (judged_against.commit, judged_against.number)
    if (current and (current.commit, current.number)) != expected:
        before, after = (judged_against.version if judged_against else "none", current.version if current else "none")
        raise LostRaceError(
            f"{model}'s champion changed from {before} to {after} while the candidate was judged, so it was not"
            f" promoted. Judge it against the new one: ratchet retrain {model}"
        )


def _new_tag(root: Path, name: str, commit: str, timestamp: int, message: str) -> dict[str, str]:
    """An annotated tag object that no ref points to yet: {ref: object}. `timestamp`: Unix time, s."""
    return {f"refs/tags/{name}": write_tag_object(root, name, commit, timestamp, message)}


def write_tag_object(root: Path, name: str, commit: str, timestamp: int, message: str) -> str:
    """The same, for whatever ref: gives the object."""
    check_identity(root)
    tagger = git(root, "var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]
    content = f"object {commit}\ntype commit\ntag {name}\ntagger {tagger} {timestamp} +0000\n\n{message}\n"
    return git(root, "mktag", text=content)


def _parse_tag(model: str, name: str, commit: str, when: int) -> Tag | None:
    action = rf"@(?P<version>{SEMVER})(?P<gone>!?)|@deprecated|#(?P<stage>[\w/-]+)(?P<off>!?)"
    match = re.fullmatch(rf"{re.escape(model)}(?:{action})(?:#(?P<n>\d+))?", name)
    if not match:
        return None
    return Tag(
        name,
        commit,
        when,
        counter=int(match["n"] or 0),
        version=match["version"],
        stage=match["stage"],
        cancels=bool(match["gone"] or match["off"]),
    )


def _sort_key(tag: Tag) -> tuple[int, int, str]:
    """By time; within one second (GTO's tags know no less) a version before its stage, then by counter."""
    return (tag.time, tag.counter, tag.name)


def _versions(model_tags: Sequence[Tag]) -> dict[str, str | None]:
    """Version of each registered commit; None where it was deregistered."""
    return {tag.commit: None if tag.cancels else tag.version for tag in model_tags if tag.version}


def _previous_version(current: Champion, registered: Mapping[str, str]) -> str:
    below = [version for version in registered if _semver(version) < _semver(current.version)]
    if not below:
        others = ", ".join(sorted(set(registered) - {current.version}, key=_semver))
        hint = f" Others: {others}; choose with --to" if others else ""
        raise UserError(f"{current.model} {current.version} has no version before it to go back to.{hint}")
    return max(below, key=_semver)


def _semver(version: str | None) -> tuple[int, int, int]:
    match = re.match(SEMVER, version or "")
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def _artifact_names(model: str) -> tuple[str, str]:
    return (model, f"{model}-program")


def _tag_patterns(model: str) -> list[str]:
    return [f"refs/tags/{model}@*", f"refs/tags/{model}#*"]


def _local_refs(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Those of these refs, or of refs that match these patterns, that this clone has: {ref: object}."""
    return _parse_refs(git(root, "for-each-ref", "--format=%(objectname)%09%(refname)", *names))


def _parse_refs(listing: str) -> dict[str, str]:
    return {line.split("\t")[1]: line.split("\t")[0] for line in listing.splitlines()}
