"""What README and docs say is held against the program: commands, options, links, files and numbers."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

CODE = Path(__file__).parent.parent
PAGES = [
    *(CODE / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((CODE / "docs").rglob("*.md")),
]


GROUPS = {"notify"}  # commands that have commands of their own


def _text(page: Path) -> str:
    return page.read_text()


@cache
def _help(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command, "--help"],
        cwd=CODE,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"ratchet {' '.join(command)} --help: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_ratchet_command_shown_exists_with_its_options(page: Path) -> None:
    for line in re.findall(r"^\$? ?ratchet ([a-z]+[^\n#|]*)", _text(page), re.MULTILINE):
        verb, *rest = line.split()
        help_text = _help(verb, *rest[:1]) if verb in GROUPS else _help(verb)
        for option in (word.split("=")[0] for word in rest if word.startswith("--")):
            assert option in help_text, f"{page.name}: ratchet {verb} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_every_file_named_is_there(page: Path) -> None:
    text = _text(page)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:flows|tasks|models|tests|docs|benchmarks)/[\w./-]+\.(?:py|md|yaml))`", text)
    assert missing + [name for name in named if not (CODE / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_shown_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (CODE / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"(?:`|^\$? ?)make ([a-z]+)", _text(page), re.MULTILINE))
    assert shown <= targets


def test_the_lock_names_no_host_and_hashes_every_package() -> None:
    lock = (CODE / "requirements.txt").read_text()
    assert "://" not in lock
    packages = re.findall(r"^[a-z0-9][\w.\-\[\]]*==", lock, re.MULTILINE)
    blocks = re.split(r"\n(?=[a-z0-9])", lock)
    assert len(packages) > 100
    assert [block.split()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block] == []
