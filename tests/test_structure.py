"""The architecture, kept by tests: who imports whom, what a stage depends on, what stays light."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from models.common.kind import known_kinds, load_kind
from tests.conftest import CODE

HEAVY = ("torch", "torchvision", "prefect", "dvc", "great_expectations", "bentoml", "pandas", "numpy", "onnxruntime")
STAGES = ("validate", "initial_weights", "train", "evaluate")


def modules(package: str) -> dict[str, Path]:
    """Module name: file, of everything in a top-level package."""
    found = {}
    for path in (CODE / package).rglob("*.py"):
        parts = path.relative_to(CODE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


OURS = {name: path for package in ("flows", "tasks", "models") for name, path in modules(package).items()}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; not those for type checkers only."""
    tree = ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def closure(start: Iterable[str]) -> set[str]:
    """Our modules that these ones import, directly or through others."""
    todo, found = list(start), set()
    while todo:
        name = todo.pop()
        if name in OURS and name not in found:
            found.add(name)
            todo += imports(OURS[name])
            todo.append(name.rpartition(".")[0])
    return found


def stage_dependencies(stage: str, kind: str) -> list[str]:
    content = yaml.safe_load((CODE / "dvc.yaml").read_text())["stages"][stage]["do"]["deps"]
    return [path.replace("${item.kind}", kind) for path in content if not path.startswith(("data/", "artifacts/"))]


def uncovered(files: Iterable[Path], stage: str, kind: str) -> set[str]:
    """Files, relative to the repository, that no dependency of the stage holds."""
    dependencies = [Path(path) for path in stage_dependencies(stage, kind)]
    return {str(file) for file in files if not any(file == path or path in file.parents for path in dependencies)}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("models", ("tasks", "flows", "prefect", "dvc")), ("tasks", ("flows", "prefect")), ("flows", ("torch", "dvc"))],
)
def test_imports_go_one_way(package: str, forbidden: tuple[str, ...]) -> None:
    for path in modules(package).values():
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & set(forbidden), f"{path.relative_to(CODE)} imports {tops & set(forbidden)}"


@pytest.mark.parametrize("kind", known_kinds())
def test_what_serves_a_kind_needs_no_torch(kind: str) -> None:
    carried = load_kind(kind).SERVICE_MODULES
    used = {name.split(".")[0] for module in carried for name in imports(OURS[module])}
    assert not used & {"torch", "torchvision", "prefect", "dvc", "great_expectations", "pandas"}


@pytest.mark.parametrize("kind", known_kinds())
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_it_can_import(stage: str, kind: str) -> None:
    reached = closure([f"tasks.{stage}", f"models.{kind}"])
    files = [OURS[name].relative_to(CODE) for name in reached if name not in ("tasks", "models")]
    missing = uncovered(files, stage, kind)
    assert not missing, f"dvc.yaml: {stage} can import these and does not depend on them: {sorted(missing)}"


def test_a_stage_depends_on_every_module_it_really_imports(project: Path, digits: Path) -> None:
    run = """
import atexit, json, pathlib, runpy, sys
root = pathlib.Path.cwd()
def tell():
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths = {pathlib.Path(file) for file in files if file}
    ours = [str(path.relative_to(root)) for path in paths if path.is_relative_to(root)]
    (root / f"{stage}.imports").write_text(json.dumps(ours))
stage = sys.argv[1]
sys.argv = ["tasks." + stage, "digits"]
atexit.register(tell)
runpy.run_module("tasks." + stage, run_name="__main__", alter_sys=True)
"""
    env = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=project, env=env, check=True, capture_output=True)

    python("-m", "flows.cli", "add", "digits", str(digits))
    for stage in STAGES:
        python("-c", run, stage)
        used = [Path(name) for name in json.loads((project / f"{stage}.imports").read_text())]
        used = [path for path in used if path not in (Path("tasks/__init__.py"), Path("models/__init__.py"))]
        assert Path("tasks/project/params.py") in used
        assert not uncovered(used, stage, "image_classification")


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys; sys.argv = ['ratchet', '--help']\n"
        "from flows import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=CODE, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "retrain" in done.stdout


def test_what_is_installed_is_locked_and_names_no_place_to_get_it_from() -> None:
    for name in ("requirements.in", "requirements.txt", "Makefile"):
        assert "://" not in (CODE / name).read_text(), name
    lines = (CODE / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in pinned)
    assert len([line for line in lines if "--hash=sha256:" in line]) >= len(pinned)


def test_files_and_functions_stay_short() -> None:
    lengths = []
    for path in OURS.values():
        text = path.read_text()
        assert text.count("\n") <= 350, f"{path.relative_to(CODE)} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 60, f"{path.relative_to(CODE)}: {node.name} has {length} lines"
                lengths.append(length)
    assert sorted(lengths)[len(lengths) // 2] <= 12
