"""The architecture, kept by tests: who imports whom, what a stage depends on, what stays light."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.common.imports import closure, imports, without_packages
from models.common.kind import MEMBERS, known_kinds
from tasks.package import service_modules
from tasks.project.fingerprint import JUDGING_PATHS, PRESENTATION_ONLY
from tests.conftest import CODE, git

HEAVY = ("torch", "torchvision", "prefect", "dvc", "great_expectations", "bentoml", "pandas", "numpy", "onnxruntime")
STAGES = ("validate", "initial_weights", "train", "evaluate")
ROOMS = (  # from the top down: a room may import from those that come after it
    "flows",
    "flows/up",
    "flows/retraining",
    "tasks",
    "tasks/adding",
    "tasks/validation",
    "tasks/packaging",
    "tasks/retention",
    "tasks/gating",
    "tasks/project",
    "models/<kind>",
    "models/common/reporting",
    "models/common/objects",
    "models/common/segmentation",
    "models/common/classification",
    "models/common/transcripts",
    "models/common/audio",
    "models/common/backbones",
    "models/common/image",
    "models/common/program",
    "models/common/training",
    "models/common/data",
    "models/common",
    "models",
)


def modules(package: str) -> dict[str, Path]:
    """Module name: file, of everything in a top-level package."""
    files = {}
    for path in (CODE / package).rglob("*.py"):
        parts = path.relative_to(CODE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


OURS = {name: path for package in ("flows", "tasks", "models") for name, path in modules(package).items()}


def stage_dependencies(stage: str, kind: str) -> list[str]:
    content = yaml.safe_load((CODE / "dvc.yaml").read_text())["stages"][stage]["do"]["deps"]
    return [path.replace("${item.kind}", kind) for path in content if not path.startswith(("data/", "artifacts/"))]


def uncovered(files: Iterable[Path], stage: str, kind: str) -> set[str]:
    """Files, relative to the repository, that no dependency of the stage holds."""
    return outside(files, stage_dependencies(stage, kind))


def outside(files: Iterable[Path], paths: Iterable[str]) -> set[str]:
    """Files that are neither one of these paths nor in one of them."""
    known = [Path(path) for path in paths]
    return {str(file) for file in files if not any(file == path or path in file.parents for path in known)}


def room(path: Path) -> str:
    """Which of ROOMS a file is in; every kind is a room of its own between `tasks` and `models/common`."""
    folder = str(path.parent.relative_to(CODE))
    return folder if folder in ROOMS else "models/<kind>"


def test_every_folder_is_a_room_that_has_its_place() -> None:
    kinds = {f"models/{name}" for name in known_kinds()}
    assert {str(path.parent.relative_to(CODE)) for path in OURS.values()} - kinds == set(ROOMS) - {"models/<kind>"}


def test_imports_go_down_from_room_to_room_and_never_up() -> None:
    for path in OURS.values():
        here = ROOMS.index(room(path))
        for name in imports(path):
            other = OURS.get(name)
            if other and other.name != "__init__.py":
                there = ROOMS.index(room(other))
                assert there >= here, f"{path.relative_to(CODE)} ({ROOMS[here]}) imports {name}, which lies above it"


def test_a_rooms_init_says_what_it_is_for_and_nothing_else() -> None:
    """So nothing depends on it, and a Bento carries it empty."""
    for folder in set(ROOMS) - {"models/<kind>"}:
        tree = ast.parse((CODE / folder / "__init__.py").read_text())
        assert ast.get_docstring(tree), folder
        assert len(tree.body) == 1, folder


def test_no_kind_imports_another() -> None:
    for kind in known_kinds():
        others = {f"models.{other}" for other in known_kinds()} - {f"models.{kind}"}
        for path in (CODE / "models" / kind).glob("*.py"):
            reached = {".".join(name.split(".")[:2]) for name in imports(path)}
            assert not reached & others, f"{path.relative_to(CODE)} imports {reached & others}"


def test_imports_make_no_circle() -> None:
    files = without_packages(OURS)
    graph = {name: {other for other in imports(OURS[name]) if other in files} for name in files}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


@pytest.mark.parametrize(
    ("package", "forbidden"), [("models", ("prefect", "dvc")), ("tasks", ("prefect",)), ("flows", ("torch", "dvc"))]
)
def test_each_floor_leaves_libraries_alone_that_are_not_its_business(package: str, forbidden: tuple[str, ...]) -> None:
    for path in modules(package).values():
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & set(forbidden), f"{path.relative_to(CODE)} imports {tops & set(forbidden)}"


@pytest.mark.parametrize("kind", known_kinds())
def test_what_serves_a_kind_needs_no_torch(kind: str) -> None:
    used = {name.split(".")[0] for module in service_modules(kind) for name in imports(OURS[module])}
    assert not used & {"torch", "torchvision", "prefect", "dvc", "great_expectations", "pandas"}


def files_called(stage: str) -> set[str]:
    """The files of a kind that a stage calls: those of the members that its code names, as in `params.kind.score`."""
    modules = [name for name in closure([f"tasks.{stage}"]) if name.startswith("tasks.")]
    trees = [ast.parse(OURS[name].read_text()) for name in modules]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    named = {node.attr for node in nodes if ast.unparse(node.value).split(".")[-1] == "kind"}
    return {MEMBERS[name][0] for name in named if name in MEMBERS}


def test_the_stages_call_what_their_names_say() -> None:
    """The test below rests on this."""
    assert {stage: files_called(stage) - {"__init__", "params"} for stage in STAGES} == {
        "validate": {"reading"},
        "initial_weights": set(),
        "train": {"training"},
        "evaluate": {"scoring"},
    }


@pytest.mark.parametrize("kind", known_kinds())
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_it_can_import(stage: str, kind: str) -> None:
    start = [f"models.{kind}" if file == "__init__" else f"models.{kind}.{file}" for file in files_called(stage)]
    reached = without_packages(closure([f"tasks.{stage}", *start]))
    missing = uncovered([OURS[name].relative_to(CODE) for name in reached], stage, kind)
    assert not missing, f"dvc.yaml: {stage} can import these and does not depend on them: {sorted(missing)}"


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_what_only_shows(stage: str) -> None:
    shows = ["models/common/reporting/svg.py", "models/image_classification/report.py", "tasks/report.py"]
    assert uncovered(map(Path, shows), stage, "image_classification") == set(shows)


def test_training_does_not_depend_on_what_judges() -> None:
    judges = ["tasks/gating/gate.py", "tasks/judge.py", "models/image_classification/scoring.py", "tasks/evaluate.py"]
    judges += ["models/image_classification/predictor.py"]
    assert uncovered(map(Path, judges), "train", "image_classification") == set(judges)


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
        used = [path for path in used if path.name != "__init__.py" or path.parent.name in known_kinds()]
        assert Path("tasks/project/params.py") in used
        assert not uncovered(used, stage, "image_classification")


def judging(kind: str) -> list[Path]:
    """Files that a verdict on a model of this kind, and its Bento, come from."""
    start = ["tasks.judge", "tasks.package", f"models.{kind}.scoring", f"models.{kind}.predictor"]
    build = OURS["tasks.packaging.build"]  # packaging starts it as a process
    files = {OURS[name] for name in without_packages(closure(start))} | {build}
    return [path.relative_to(CODE) for path in files]


@pytest.mark.parametrize("kind", known_kinds())
def test_the_fingerprint_covers_every_module_that_judges(kind: str) -> None:
    files = judging(kind)
    assert {Path("tasks/gating/statistics.py"), Path(f"models/{kind}/scoring.py")} <= set(files)
    judges = [path.replace("${item.kind}", kind) for path in JUDGING_PATHS]
    assert not outside(files, judges), f"not in JUDGING_PATHS of fingerprint.py: {sorted(outside(files, judges))}"
    assert not [str(file) for file in files if PRESENTATION_ONLY.match(str(file))]
    assert all((CODE / path).exists() for path in judges)


@pytest.mark.parametrize("stage", ["validate", "train"])
def test_a_change_of_what_only_judges_trains_nothing_and_one_of_the_environment_does(stage: str) -> None:
    judges = {"tasks/gating/gate.py", "tasks/judge.py", "tasks/package.py", "tasks/packaging/smoke_test.py"}
    assert uncovered([Path("requirements.txt"), *map(Path, judges)], stage, "image_classification") == judges


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
    for name in ("requirements.in", "requirements-dev.in", "requirements.txt", "Makefile"):
        assert "://" not in (CODE / name).read_text(), name
    lines = (CODE / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in pinned)
    assert len([line for line in lines if "--hash=sha256:" in line]) >= len(pinned)


def test_the_ci_script_goes_on_and_says_so_where_no_browser_can_be_installed(tmp_path: Path) -> None:
    for name in ("env", "bash", "dirname", "id", "timeout"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name, content in (("apt-get", "exit 100"), ("make", 'echo "make $1"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [CODE / ".ci/run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60
    )
    notice, *steps = done.stdout.splitlines()
    assert "the tests of the start page are skipped" in notice
    assert steps == ["make lint", "make test"]


def asked_for(file: str) -> set[str]:
    """Names of the packages that a requirements file asks for."""
    lines = [line.partition("#")[0].strip() for line in (CODE / file).read_text().splitlines()]
    return {Requirement(line).name for line in lines if line}


def test_what_the_program_imports_is_asked_for_to_run_it_and_not_only_to_develop_it() -> None:
    optional = {"wandb"}
    tops = {name.split(".")[0] for path in OURS.values() for name in imports(path)}
    foreign = tops - set(sys.stdlib_module_names) - {"flows", "tasks", "models"} - optional
    sources = packages_distributions()
    declared = asked_for("requirements.in") | {"starlette", "ruamel-yaml"}  # these two come with FastAPI and DVC
    assert {
        name for name in foreign if not {canonicalize_name(each) for each in sources.get(name, [])} & declared
    } == set()


def test_the_wheel_holds_the_whole_program_and_asks_for_what_it_needs(project: Path, tmp_path: Path) -> None:
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=project, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        files = set(wheel.namelist())
        metadata = wheel.read(next(name for name in files if name.endswith("/METADATA"))).decode()
    ours = [Path(name) for name in git(project, "ls-files", "flows", "tasks", "models").splitlines()]
    assert [str(path) for path in ours if str(path) not in files] == []
    needed = [line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    always = {Requirement(line).name for line in needed if "extra ==" not in line}
    assert always == asked_for("requirements.in")
    assert {Requirement(line).name for line in needed} - always == asked_for("requirements-dev.in")
