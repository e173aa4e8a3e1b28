"""The same bytes on the DVC remote, and the experiments on the git remote: `ratchet gc --remote`, only when asked to.

What any ref on the git remote, or in this clone, names is kept; all of them were fetched before.
"""

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from models.common.errors import PublishError, RatchetError
from tasks.project.repository import environment, git, git_remote, is_shared
from tasks.retention.candidates import SavedCandidate
from tasks.retention.garbage import Garbage
from tasks.retention.references import artifacts_of, published_refs

# Reads {"kept": MD5s, "wanted": MD5s, "delete": bool}; writes {MD5: bytes} of what goes. A folder's list goes last.
SCRIPT = """
import json, sys
from dvc.repo import Repo
from dvc_data.hashfile.db import get_index

def entries(digest):
    for odb in (repo.cache.local, remote):
        try:
            return {entry["md5"] for entry in json.loads(odb.fs.cat_file(odb.oid_to_path(digest)))}
        except FileNotFoundError:
            continue
    return set()

def with_contents(digests):
    return set(digests).union(*(entries(digest) for digest in digests if digest.endswith(".dir")))

task = json.load(sys.stdin)
with Repo() as repo:
    remote = repo.cloud.get_remote_odb(None, "gc", hash_name="md5")
    there = set(remote.oids_exist(sorted(task["wanted"])))
    wanted = with_contents(there) - with_contents(task["kept"])
    going = sorted(remote.oids_exist(sorted(wanted)), key=lambda digest: (digest.endswith(".dir"), digest))
    sizes = {digest: remote.fs.size(remote.oid_to_path(digest)) for digest in going}
    if task["delete"]:
        for digest in going:
            remote.delete(digest)
        get_index(remote).clear()  # by which `dvc push` remembers what is there
    print(json.dumps(sizes))
"""


def collect(root: Path, dropped: Sequence[SavedCandidate], kept: Collection[str], delete: bool) -> list[Garbage]:
    """What goes from the remotes; nothing where the project is not shared. PublishError where a remote refuses."""
    if not is_shared(root) or not dropped:
        return []
    owners = {
        digest: candidate
        for candidate, digests in zip(dropped, artifacts_of(root, dropped), strict=True)
        for digest in digests
    }
    if delete:
        _delete_experiments(root, dropped)
    sizes = _delete_bytes(root, {"kept": sorted(kept), "wanted": sorted(owners), "delete": delete})
    models = sorted({candidate.model for candidate in dropped})
    model = models[0] if len(models) == 1 else ""
    return [Garbage("remote", owners[d].model if d in owners else model, d, (Path(d),), n) for d, n in sizes.items()]


def _delete_experiments(root: Path, dropped: Sequence[SavedCandidate]) -> None:
    remote, commits = str(git_remote(root)), {candidate.commit for candidate in dropped}
    refs = {ref: value for ref, value in published_refs(root).items() if ref.startswith("refs/exps/")}
    going = {ref: value for ref, value in refs.items() if value in commits}
    if not going:
        return
    leases = [f"--force-with-lease={ref}:{value}" for ref, value in going.items()]
    try:
        git(root, "push", "--quiet", "--no-verify", *leases, remote, *(f":{ref}" for ref in going))
    except RatchetError as error:
        raise PublishError(f"'{remote}' did not let go of experiments, so its bytes were left alone: {error}") from None


def _delete_bytes(root: Path, task: dict[str, object]) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=root,
        env=environment(),
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise PublishError(f"The DVC remote could not be cleared: {reason}. Check your rights there, and run it again")
    sizes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return sizes
