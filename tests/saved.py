"""Candidates made in a moment, without training: commits, refs and a DVC cache as a run leaves them."""

import hashlib
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tasks.project.fingerprint import judgement_ref
from tasks.project.registry import Champion, champion, register_and_assign

PART = 20_000  # bytes of a candidate's program, weights, report and Bento, each


@dataclass(frozen=True)
class Saved:
    """A candidate: its commit, and the MD5 of all that only it has."""

    model: str
    name: str
    commit: str
    digests: tuple[str, ...]


def store(cache: Path, content: bytes, suffix: str = "") -> str:
    """Puts bytes where DVC keeps them; gives their MD5."""
    digest = hashlib.md5(content).hexdigest() + suffix
    path = object_path(cache, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)
    return digest


def object_path(cache: Path, digest: str) -> Path:
    return cache / "files/md5" / digest[:2] / digest[2:]


def store_folder(cache: Path, files: dict[str, bytes]) -> tuple[str, list[str]]:
    """A folder as DVC keeps it: the MD5 of its list, and those of its files."""
    entries = [
        {"md5": store(cache, content), "relpath": name} for name, content in sorted(files.items())
    ]  # DVC sorts them
    return store(cache, json.dumps(entries).encode(), ".dir"), [entry["md5"] for entry in entries]


def save(project: Path, number: int, model: str = "digits", verdict: str = "HOLD", refs: bool = True) -> Saved:
    """A candidate on top of HEAD, judged at second `number`. Its bytes come from its model and number alone."""
    cache, folder = project / ".dvc/cache", f"artifacts/{model}"
    rng = random.Random(f"{model} {number}")
    shared = b"same for all of a model " + model.encode()
    program, program_files = store_folder(cache, {"program.onnx": rng.randbytes(PART), "program.json": shared})
    training, training_files = store_folder(cache, {"weights.pt": rng.randbytes(PART)})
    report, bento = store(cache, rng.randbytes(PART)), store(cache, rng.randbytes(PART))
    out = "    - path: {}\n      hash: md5\n      md5: {}\n      size: 1\n"
    lock = f"schema: '2.0'\nstages:\n  train@{model}:\n    cmd: python -m tasks.train {model}\n    outs:\n"
    lock += out.format(f"{folder}/program", program) + out.format(f"{folder}/training", training)
    _note_run(cache, model, number, program, training)
    fingerprint = hashlib.sha256(f"{model} {number}".encode()).hexdigest()
    name = f"{model}-{fingerprint[:8]}"
    files = {
        "dvc.lock": lock,
        f"{folder}/report.html.dvc": _pointer(report, "report.html"),
        f"{folder}/{model}.bento.dvc": _pointer(bento, f"{model}.bento"),
        f"{folder}/verdict.json": json.dumps(
            {"outcome": verdict, "metric": "accuracy", "reasons": ["it is so"], "checks": []}
        ),
    }
    trailers = f"Model: {model}\nVerdict: {verdict}\nData-Version: abc\nFingerprint: {fingerprint}"
    commit = commit_files(project, files, f"{verdict} {model}\n\n{trailers}", 1_700_000_000 + number)
    names = [f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", *[judgement_ref(model, fingerprint)] * refs]
    lines = "".join(f"create {ref} {commit}\n" for ref in names)
    subprocess.run(["git", "update-ref", "--stdin"], cwd=project, input=lines, text=True, check=True)
    own = {program, program_files[-1], training, *training_files, report, bento}
    return Saved(model, name, commit, tuple(own))


def commit_files(project: Path, files: dict[str, str], message: str, when: int, parent: str = "HEAD") -> str:
    """A commit of these files on top of the parent's, which nothing points to yet."""

    def run(*command: str, text: str = "") -> str:
        done = subprocess.run(["git", *command], cwd=project, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    stream = f"commit refs/saved\ncommitter T <t@example.org> {when} +0000\ndata {len(message)}\n{message}\n"
    stream += f"from {run('rev-parse', parent)}\n"
    stream += "".join(f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in files.items())
    run("fast-import", "--quiet", "--force", text=stream)
    commit = run("rev-parse", "refs/saved")
    run("update-ref", "-d", "refs/saved")
    return commit


def promote(project: Path, saved: Saved) -> Champion:
    """Puts it in production."""
    return register_and_assign(project, saved.model, saved.commit, champion(project, saved.model))


def bytes_of(project: Path, saved: Saved) -> int:
    """How many of its files the cache still has."""
    return sum(object_path(project / ".dvc/cache", digest).exists() for digest in saved.digests)


def _note_run(cache: Path, model: str, number: int, *outputs: str) -> None:
    """As DVC notes in its run cache that a stage ran."""
    key = hashlib.sha256(f"{model} {number}".encode()).hexdigest()
    path = cache / "runs" / key[:2] / key / key
    path.parent.mkdir(parents=True)
    outs = "".join(f"- path: artifacts/{model}/{n}\n  hash: md5\n  md5: {md5}\n" for n, md5 in enumerate(outputs))
    path.write_text(f"cmd: python -m tasks.train {model}\ndeps: []\nouts:\n{outs}")


def _pointer(digest: str, path: str) -> str:
    return f"outs:\n- md5: {digest}\n  size: 1\n  hash: md5\n  path: {path}\n"
