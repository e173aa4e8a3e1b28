"""What lies in .ratchet and artifacts and may go: reports, services, decoded examples, checkpoints, logs."""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from tasks.project.locks import LOCK_FILE
from tasks.retention.garbage import DAY, Garbage, garbage, is_older, last_used, last_written

BATCH = re.compile(r".*-(?P<md5>[0-9a-f]{8})\.(?:npy|i16|ends\.npy)")  # a file of decoded examples
LOGS = ("logs", "predictions", "quarantine")
GRACE = 1.0  # days in which what somebody may just be about to use stays


def old_reports(artifacts: Path, count: int, kept: Collection[str]) -> list[Garbage]:
    """Reports of runs after the newest `count` of each model; never the latest, nor one of these names."""
    found = []
    for runs in sorted(artifacts.glob("*/runs")):
        latest = (runs / "latest").resolve().name
        folders = [path for path in runs.iterdir() if path.is_dir() and not path.is_symlink()]
        folders.sort(key=last_written, reverse=True)
        found += [
            garbage("reports", runs.parent.name, path)
            for path in folders[count:]
            if path.name not in kept and path.name != latest
        ]
    return found


def unused_services(bentos: Path, in_production: Collection[str]) -> list[Garbage]:
    """Unpacked services, and copies of .bento files, of other versions than these ("digits-v1.2.0"), not in use."""
    folders = [path for path in bentos.glob("[!.]*/") if path.name != "served"]
    paths = [path for path in folders if path.name.rpartition("-")[0] not in in_production]
    paths += [path for path in bentos.glob("served/*.bento") if path.stem not in in_production]
    old = [path for path in paths if is_older(path, GRACE)]
    used = in_use() if old else set()
    return [garbage("services", re.split(r"-v?\d+\.", path.name)[0], path) for path in old if not _is_in(path, used)]


def in_use() -> set[str]:
    """Paths that a living process of this machine works in, was called with, or has in its environment."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found |= set((process / "cmdline").read_bytes().decode(errors="replace").split("\0"))
        with suppress(OSError):  # another user's
            found.add(str((process / "cwd").readlink()))
            variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            found |= {value for _, _, value in (variable.partition("=") for variable in variables)}
    return {path for path in found if path.startswith("/")}


def decoded_of_other_batches(decoded: Path, batches: Collection[str]) -> list[Garbage]:
    """Decoded examples of batches (MD5) that are not among these."""
    known = {digest[:8] for digest in batches}
    files = ((path, BATCH.fullmatch(path.name)) for path in sorted(decoded.glob("*/*")))
    return [garbage("decoded", "", path) for path, match in files if match and match["md5"] not in known]


def unread_decoded(decoded: Path, days: float) -> list[Garbage]:
    """Decoded examples that nobody has read for so long: of a converter, or a model, that is no more."""
    oldest = time.time() - days * DAY
    return [garbage("decoded", "", path) for path in sorted(decoded.glob("*/*")) if last_used(path) < oldest]


def old_checkpoints(checkpoints: Path, days: float) -> list[Garbage]:
    """Of trainings that were interrupted more than `days` ago and never went on."""
    return [garbage("checkpoints", "", path) for path in sorted(checkpoints.glob("*/")) if is_older(path, days)]


def old_logs(home: Path, days: float) -> list[Garbage]:
    """Logs, predictions and quarantine reports that were last written more than `days` ago."""
    files = (path for name in LOGS for path in sorted((home / name).rglob("*")) if path.is_file())
    return [garbage("logs", _model_of(path, home), path) for path in files if is_older(path, days)]


def left_overs(home: Path, artifacts: Path) -> list[Garbage]:
    """What killed processes left and nobody holds: half-written files, folders of services that run no more."""
    half_written = [
        *(path for path in home.glob("bentos/.*ing-*") if not _is_locked(path)),
        *(path for path in home.glob("adding/*/") if not _is_locked(path)),
        *home.glob("bentos/served/*.partial"),
        *home.glob("decoded/*/*.partial"),
        *artifacts.glob("*/runs/.latest-*"),
        *_temporary_homes(),
    ]
    old = [path for path in half_written if is_older(path, GRACE)]
    used = in_use() if old else set()
    return [garbage("left-overs", "", path) for path in old if not _is_in(path, used)]


def _temporary_homes() -> Iterable[Path]:
    """BENTOML_HOME of each service that was ever started here and that was killed; see tasks/serve.py."""
    folders = Path(tempfile.gettempdir()).glob("ratchet-serve-*")
    return [path for path in folders if os.access(path, os.W_OK)]


def _is_in(path: Path, used: Iterable[str]) -> bool:
    return any(other == str(path) or other.startswith(f"{path}/") for other in used)


def _is_locked(folder: Path) -> bool:
    """Whether a living process holds this temporary folder; see tasks/project/locks.py."""
    try:
        with (folder / LOCK_FILE).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _model_of(path: Path, home: Path) -> str:
    parts = path.relative_to(home).parts
    return parts[1] if len(parts) > 2 else ""
