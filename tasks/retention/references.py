"""Which commits stay, and which bytes their DVC files name. Git plumbing alone: a thousand commits take a second."""

import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from models.common.errors import RatchetError
from tasks.project.repository import environment, git, git_remote, is_shared
from tasks.retention.candidates import JUDGEMENT, SavedCandidate
from tasks.retention.garbage import read_text

POINTER = re.compile(r"(?:\.dvc|[ /]dvc\.lock)$")  # a line "object path" of a file that names bytes
DIGEST = r"'?(?P<md5>[0-9a-f]{32}(?:\.dir)?)"
NAMED = re.compile(rf"\bmd5: {DIGEST}")
ARTIFACT = re.compile(rf"- path: artifacts/[^\n]+\n\s+hash: md5\n\s+md5: {DIGEST}")
NUMBERED = re.compile(r"(refs/ratchet/.*?)(\d+)")


def published_refs(root: Path) -> dict[str, str]:
    """{ref: object} of the git remote, each object fetched; {} where nothing is shared. RatchetError: no answer."""
    if not is_shared(root):
        return {}
    remote = str(git_remote(root))
    rows = [line.split("\t") for line in git(root, "ls-remote", "--refs", remote).splitlines()]
    refs = {ref: value for value, ref in rows}
    if missing := _not_here(root, refs):
        names = "".join(f"{ref}\n" for ref in missing)
        git(root, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--stdin", remote, text=names)
    return refs


def local_refs(root: Path) -> dict[str, str]:
    """{ref: object} of this clone, and what else holds a commit here: each worktree's HEAD, each stash."""
    listing = git(root, "for-each-ref", "--format=%(objectname)%09%(refname)")
    refs = {line.split("\t")[1]: line.split("\t")[0] for line in listing.splitlines()}
    heads = re.findall(r"^HEAD ([0-9a-f]+)$", git(root, "worktree", "list", "--porcelain"), re.MULTILINE)
    others = [*heads, *git(root, "stash", "list", "--format=%H").split()]
    return refs | {f"HEAD {number}": value for number, value in enumerate(others) if value.strip("0")}


def roots(refs: Mapping[str, str], candidates: Collection[str]) -> set[str]:
    """The objects that stay with all of their history: what any ref names, but for a candidate's own refs.

    A candidate's own are its judgement and DVC's experiment. Of a numbered log (approval-0001, -0002 …) the last entry
    counts.
    """
    last = {match[1]: ref for ref in sorted(refs) if (match := NUMBERED.fullmatch(ref))}
    kept = set()
    for ref, value in refs.items():
        if JUDGEMENT.fullmatch(ref) or (ref.startswith("refs/exps/") and value in candidates):
            continue
        if (match := NUMBERED.fullmatch(ref)) and last[match[1]] != ref:
            continue
        kept.add(value)
    return kept


def history(root: Path, commits: Iterable[str]) -> tuple[set[str], set[str]]:
    """Of these commits and all before them: every git object, and the MD5 of everything that a DVC file ever named."""
    listing = _git(root, "rev-list", "--objects", "--stdin", text="".join(f"{commit}\n" for commit in commits))
    lines = listing.splitlines()
    named = {match["md5"] for content in _read(root, _pointers(lines)) for match in NAMED.finditer(content)}
    return {line.split(" ", 1)[0] for line in lines}, named


def named_in_checkouts(root: Path) -> set[str]:
    """The same of what is in the working trees, committed or not: of persons, and of runs that are going."""
    listing = git(root, "worktree", "list", "--porcelain")
    trees = [Path(path) for path in re.findall(r"^worktree (.+)$", listing, re.MULTILINE)]
    return {match["md5"] for tree in trees for match in NAMED.finditer(_uncommitted(tree))}


def artifacts_of(root: Path, candidates: Sequence[SavedCandidate]) -> list[set[str]]:
    """MD5 of what each candidate's own files name under artifacts/. Never of data."""
    names = [_own_files(candidate) for candidate in candidates]
    contents = iter(_read(root, [name for group in names for name in group]))
    found = []
    for _, *pointers in names:
        matches = [*ARTIFACT.finditer(next(contents)), *(m for _ in pointers for m in NAMED.finditer(next(contents)))]
        found.append({match["md5"] for match in matches})
    return found


def batches_of(root: Path, commits: Iterable[str]) -> set[str]:
    """MD5 of the data batches at exactly these commits."""
    lines: set[str] = set()
    for commit in set(commits):
        lines |= set(_git(root, "ls-tree", "-r", "--format=%(objectname) %(path)", commit, "--", "data/").splitlines())
    return {match["md5"] for content in _read(root, _pointers(lines)) for match in NAMED.finditer(content)}


def _own_files(candidate: SavedCandidate) -> list[str]:
    """What a run saves of a candidate's bytes, as git names it: its lock file first."""
    folder = f"{candidate.commit}:artifacts/{candidate.model}"
    pointers = [f"{folder}/report.html.dvc", f"{folder}/{candidate.model}.bento.dvc"]
    return [f"{candidate.commit}:dvc.lock", *pointers]


def _uncommitted(tree: Path) -> str:
    """Of a run that ends meanwhile nothing: its candidate was saved, or it has none."""
    try:
        names = git(tree, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.dvc", "*dvc.lock")
    except (RatchetError, OSError):
        if tree.exists():
            raise
        return ""
    return "\n".join(read_text(tree / name) for name in names.split("\0") if name)


def _pointers(lines: Iterable[str]) -> list[str]:
    """The objects of those lines, "object path", that name a DVC file."""
    return sorted({line.split(" ", 1)[0] for line in lines if POINTER.search(line)})


def _read(root: Path, names: Sequence[str]) -> list[str]:
    """The content of each blob, by its hash or as `commit:path`; "" for one that is not there. One process for all."""
    answer = _run(root, "cat-file", "--batch", text="".join(f"{name}\n" for name in names))
    contents, position = [], 0
    for _ in names:
        end = answer.index(b"\n", position)
        header, position = answer[position:end], end + 1
        size = 0 if header.endswith(b" missing") else int(header.rsplit(b" ", 1)[1])
        contents.append(answer[position : position + size].decode(errors="replace"))
        position += 0 if header.endswith(b" missing") else size + 1
    return contents


def _not_here(root: Path, refs: Mapping[str, str]) -> list[str]:
    """Those refs whose objects this clone does not have."""
    names = "".join(f"{value}\n" for value in refs.values())
    answers = _git(root, "cat-file", "--batch-check", text=names).splitlines()
    return [ref for ref, answer in zip(refs, answers, strict=True) if answer.endswith(" missing")]


def _git(root: Path, *args: str, text: str = "") -> str:
    """As `repository.git`, where names may be in any encoding."""
    return _run(root, *args, text=text).decode(errors="replace")


def _run(root: Path, *args: str, text: str) -> bytes:
    command = ["git", *args]
    done = subprocess.run(command, cwd=root, env=environment(), input=text.encode(), capture_output=True, check=False)
    if done.returncode:
        raise RatchetError(f"git {args[0]} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout
