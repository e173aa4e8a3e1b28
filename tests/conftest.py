"""Real parts made small: a git + DVC project with this checkout's code, and scikit-learn's digits as data."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.project.repository import CHILD_ENVIRONMENT
from tests.digits import write_digits

CODE = Path(__file__).resolve().parent.parent
IDENTITY = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
}
TINY_PARAMS = """\
models:
  digits:
    kind: image_classification
    data: {image_size: 8, splits: {val: 0.1, test: 0.3}}
    train: {network: small_cnn, width: 8, epochs: 3, batch_size: 32, learning_rate: 0.01, warmup_epochs: 0.5}
    gate: {metric: accuracy}
"""
os.environ.update(CHILD_ENVIRONMENT | IDENTITY)


def git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    for name in git(CODE, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if not name.startswith(("tests/", "benchmarks/", "docs/")) and (CODE / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CODE / name, root / name)
    (root / "params.yaml").write_text(TINY_PARAMS)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=a project")
    return root


@pytest.fixture
def project(_template: Path, tmp_path: Path) -> Path:
    """A fresh Ratchet project of its own: this checkout's code, one tiny model `digits`, no data yet."""
    return Path(shutil.copytree(_template, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 handwritten digits in class folders. Not to be written to."""
    return write_digits(tmp_path_factory.mktemp("digits"), 0, 200)
