"""What a candidate's commit points to, brought to a folder: from this machine's DVC cache, else from the DVC remote.

DVC trusts what is in its cache and on a remote; here bytes are compared with their hash as they come out. Damaged ones
are taken out of the cache and fetched again, or refused.
"""

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import yaml

from models.common.errors import RatchetError, RegistryError
from tasks.project.paths import main_checkout
from tasks.project.repository import dvc, dvc_setting, git


def fetch_output(root: Path, commit: str, path: str, into: Path) -> Path:
    """Copies the output `path` (a file or a folder, relative to the project) of a commit to `into`.

    RegistryError when the commit has no such output, or neither the cache nor a remote has its bytes undamaged.
    """
    digest = output_digest(root, commit, path)
    into.parent.mkdir(parents=True, exist_ok=True)
    if _copy_from_cache(cache(root), digest, into) and digest_of(into) == digest:
        return into
    forget(root, digest)
    _remove(into)
    try:
        dvc(root, "get", "--quiet", "--force", "--rev", commit, "-o", str(into), str(main_checkout(root)), path)
    except RatchetError as error:
        raise RegistryError(
            f"{path} of candidate {commit[:10]} is neither in the DVC cache nor on a remote: {error}."
            " If another clone has it: dvc push --all-tags there"
        ) from None
    if (found := digest_of(into)) != digest:
        forget(root, digest)
        _remove(into)
        raise RegistryError(
            f"{path} of candidate {commit[:10]} is damaged on the DVC remote: its MD5 is {found} and must be {digest}."
            " Delete it there; if another clone has it: dvc push --all-tags there"
        )
    return into


def is_intact(root: Path, commit: str, path: str, copy: Path) -> bool:
    """Whether `copy`, made earlier, has exactly the bytes of the output `path` of a commit."""
    return copy.exists() and digest_of(copy) == output_digest(root, commit, path)


def digest_of(path: Path) -> str:
    """DVC's MD5 of a file, or of a folder, which ends in `.dir`. 100 MB take about 0.2 s."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    names = sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if not each.is_dir())
    entries = [{"md5": digest_of(path / name), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir"


def forget(root: Path, digest: str) -> None:
    """Takes what is damaged of these bytes out of the cache, so that DVC fetches or makes them again."""
    folder = cache(root)
    cached = _cache_path(folder, digest)
    digests = [digest]
    if digest.endswith(".dir") and cached.exists():
        with suppress(ValueError, TypeError, KeyError):  # a listing that is damaged itself
            digests += [str(entry["md5"]) for entry in json.loads(cached.read_bytes())]
    for each in digests:
        file = _cache_path(folder, each)
        if file.exists() and digest_of(file) != each.removesuffix(".dir"):
            file.unlink()


def cache(root: Path) -> Path:
    """The DVC cache that all worktrees of this clone share."""
    main = main_checkout(root)
    configured = dvc_setting(main, "cache", "dir")
    return (main / ".dvc" / configured).resolve() if configured else main / ".dvc/cache"


def is_cached(root: Path, digest: str) -> bool:
    """Whether this clone's cache has the bytes of that DVC digest."""
    return _cache_path(cache(root), digest).exists()


def output_digest(root: Path, commit: str, path: str) -> str:
    """DVC's MD5 of an output, from its `.dvc` file or from `dvc.lock`; a folder's ends in `.dir`."""
    try:
        return str(yaml.safe_load(git(root, "show", f"{commit}:{path}.dvc"))["outs"][0]["md5"])
    except RatchetError:
        pass  # not tracked by a file of its own: a stage's output
    try:
        stages = yaml.safe_load(git(root, "show", f"{commit}:dvc.lock"))["stages"]
        return next(
            str(out["md5"]) for stage in stages.values() for out in stage.get("outs", []) if out["path"] == path
        )
    except (RatchetError, StopIteration):
        raise RegistryError(f"Commit {commit[:10]} holds no {path}, so it is no candidate of this project") from None


def _copy_from_cache(folder: Path, digest: str, into: Path) -> bool:
    """Whether every byte was there."""
    cached = _cache_path(folder, digest)
    if not cached.exists():
        return False
    if not digest.endswith(".dir"):
        shutil.copyfile(cached, into)
        return True
    try:
        entries = json.loads(cached.read_bytes())
    except ValueError:  # damaged
        return False
    if not all(_cache_path(folder, entry["md5"]).exists() for entry in entries):
        return False
    for entry in entries:
        target = into / entry["relpath"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_cache_path(folder, entry["md5"]), target)
    return True


def _cache_path(folder: Path, digest: str) -> Path:
    return folder / "files/md5" / digest[:2] / digest[2:]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
