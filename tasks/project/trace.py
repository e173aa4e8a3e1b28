"""Who did what to a model, when and why: git trailers at the end of annotated tags' messages.

    Action: rolled back
    By: Ada Lovelace <ada@example.org>
    Why: v1.3.0 takes sevens for ones since the new camera

Read with `git tag -n9 'digits#production#*'` by anyone; GTO reads the same tags and takes no notice.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.common.errors import UserError
from tasks.project.registry import STAGE, tags
from tasks.project.repository import check_identity, git

PROMOTED, FORCED, ROLLED_BACK = "promoted", "forced", "rolled back"
SEPARATOR = "\x1f"  # between trailers: no line of text holds it


@dataclass(frozen=True)
class Trace:
    """One thing that was done. `action`: promoted, approved, forced, rolled back, awaiting approval, declined."""

    action: str
    commit: str  # the candidate
    when: int  # Unix time, s
    by: str
    why: str | None = None
    version: str | None = None  # put in production
    trailers: dict[str, str] = field(default_factory=dict)  # all that the tag says

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "trailers"}


def trailers(root: Path, action: str, why: str | None = None, **more: str) -> str:
    """The end of a tag's message. UserError where git has no identity, or `why` cannot be written."""
    values = {"Action": action, "By": identity(root), "Why": one_line(why or "")}
    values |= {key.replace("_", "-"): value for key, value in more.items()}
    return "\n\n" + "\n".join(f"{key}: {value}" for key, value in values.items() if value)


def identity(root: Path) -> str:
    """`Name <mail>` as git has it; UserError where it has none."""
    check_identity(root)
    return git(root, "var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]


def one_line(text: str) -> str:
    """A reason as one line, so that it cannot pass for a trailer of its own. UserError where it is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("--why is not UTF-8 text") from None
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def productions(root: Path, model: str) -> list[Trace]:
    """Every change of what is in production, oldest first, also those of tags that say nothing of it."""
    model_tags = tags(root, model)
    versions = {tag.commit: tag.version for tag in model_tags if tag.version and not tag.cancels}
    stages = [tag for tag in model_tags if tag.stage == STAGE]
    read = {trace.trailers["ref"]: trace for trace in read_traces(root, [f"refs/tags/{model}#{STAGE}*"])}
    found = []
    for tag in stages:
        trace = read[f"refs/tags/{tag.name}"]
        action = trace.action or ("withdrawn" if tag.cancels else "put in production")
        found.append(
            Trace(action, trace.commit, tag.time, trace.by, trace.why, versions.get(tag.commit), trace.trailers)
        )
    return found


def forced_versions(root: Path, model: str) -> dict[str, str]:
    """Version of each candidate (by commit, as it was judged) that was put in production against the gate's advice."""
    forced = [trace for trace in productions(root, model) if trace.action == FORCED and trace.version]
    return {trace.trailers["Judged-As"].split()[-1]: str(trace.version) for trace in forced}


def read_traces(root: Path, patterns: Iterable[str]) -> list[Trace]:
    """What the annotated tags under these refs say, by ref name; their own ref is the trailer `ref`."""
    ref_format = (
        "%(objecttype)%09%(refname)%09%(*objectname)%09%(taggerdate:unix)%09%(taggername) %(taggeremail)"
        f"%09%(contents:trailers:unfold,separator=%x{ord(SEPARATOR):02x})"
    )
    listing = git(root, "for-each-ref", f"--format={ref_format}", *patterns).split("\n")
    rows = [f"{line}\t".split("\t")[:6] for line in listing]  # the last line has lost its empty end
    return [_trace(*row[1:]) for row in rows if row[0] == "tag"]


def _trace(ref: str, commit: str, when: str, tagger: str, text: str) -> Trace:
    said = dict(line.split(": ", 1) for line in text.split(SEPARATOR) if ": " in line)
    by = said.get("By", tagger)
    return Trace(said.get("Action", ""), commit, int(when), by, said.get("Why"), trailers=said | {"ref": ref})
