"""The one line of a tool's error output that says what is wrong, and what to do about it."""

import re

MISSING_BYTES = "Missing cache files"  # `dvc push` only warns of bytes that are neither here nor there
MARKERS = ("ERROR:", "! [", "fatal:", "error:")
NOISE = ("atomic push failed", "Having any troubles?")
# what the line may hold: what that means
CAUSES = {
    r"No space left|Errno 28\b|Disk quota exceeded|Errno 122\b|database or disk is full|Out of diskspace": (
        "the disk is full there: free some space and run it again"
    ),
    r"Permission denied|Errno 13\b|Read-only file system|Errno 30\b|Access ?Denied|Forbidden": (
        "not allowed there: check your rights, and whether it is mounted read-only"
    ),
    r"Connect call failed|Cannot connect|Could not connect|Could not resolve|Connection (refused|reset|timed out)"
    r"|[Tt]imed out|Name or service not known|does not appear to be a git repository|unable to access|unreachable": (
        "it does not answer: check its address and the network, and run it again"
    ),
}


def reason(stderr: str) -> str:
    """The line of a tool's error output that says what is wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not any(word in line for word in NOISE)]
    if missing := _missing_bytes(lines):
        return missing
    told = [line for marker in MARKERS for line in lines if line.startswith(marker)] or lines[-1:]
    for pattern, meaning in CAUSES.items():
        if line := next((line for line in told if re.search(pattern, line)), None):
            return f"{_bare(line)} ({meaning})"
    return _bare(told[0]) if told else "no reason given"


def _bare(line: str) -> str:
    for marker in ("ERROR:", "fatal:", "error:"):
        line = line.removeprefix(marker).strip()
    return line.removeprefix("unexpected error - ")


def _missing_bytes(lines: list[str]) -> str | None:
    if not any(MISSING_BYTES in line for line in lines):
        return None
    names = sorted({line for line in lines if re.match(r"(name: .*)?md5: [0-9a-f]{32}", line)})
    return (
        f"bytes that it points to are neither in the DVC cache nor on the remote ({', '.join(names[:3])})."
        " If another clone has them: dvc push there"
    )
