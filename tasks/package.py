"""Packages a candidate as a Bento, starts it in a process of its own and smoke-tests it.

Its answers must be those of the evaluation: same bytes in, same answer out.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, requires
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.common.errors import RatchetError, UserError
from models.common.imports import PACKAGES, closure_without_packages, imports, source_of, without_packages
from models.common.program.program import ProgramSpec
from tasks.packaging.smoke_test import ExampleRequest, smoke_test
from tasks.project.locks import temporary_folder
from tasks.project.params import Model, load_model
from tasks.project.paths import home
from tasks.project.repository import python
from tasks.serve import free_port, running, unpack

if TYPE_CHECKING:
    import pandas as pd

SMOKE_TEST_EXAMPLES = 32  # test examples that the Bento must answer like the evaluation
GOLDEN_EXAMPLES = 8  # of them travel in the Bento; it answers them on every start before it serves
SERVICE_SOURCE = """# Made by Ratchet. curl -F FIELD=@FILE http://127.0.0.1:3000/predict
from pathlib import Path

from models.common.program.bento_service import bento_service
from models.{kind}.predictor import SERVICE

service = bento_service(SERVICE, Path(__file__).parent)
"""


@dataclass(frozen=True)
class PackageReport:
    """What was packaged, and the result of its smoke test."""

    bento: Path
    size_mb: float
    seconds: float  # all of packaging
    start_seconds: float  # until the service was ready
    requests: int  # answered as expected in the smoke test
    latency_ms: float  # median of one request to the running service


def package(root: Path, model: str, version: str) -> PackageReport:
    """Builds artifacts/<model>/<model>.bento and smoke-tests it. RatchetError where an answer is wrong."""
    start = time.perf_counter()
    params = load_model(root, model)
    artifacts = root / "artifacts" / model
    requests = example_requests(root, params)
    bento = artifacts / f"{model}.bento"
    with temporary_folder(home(root) / "bentos", ".packaging-") as work:
        golden = requests[:: SMOKE_TEST_EXAMPLES // GOLDEN_EXAMPLES]
        candidate = _build(params, version, artifacts / "program", golden, work)
        service_start = time.perf_counter()
        folder, port = unpack(candidate, work), free_port()
        with running(folder, "127.0.0.1", port, log=work / "serve.log", interpreter=python()):
            start_seconds = time.perf_counter() - service_start
            result = smoke_test(
                f"http://127.0.0.1:{port}", version, requests, params.serve.max_body_mb, params.kind.SERVICE.differs
            )
        shutil.copyfile(candidate, work / "tested")
        (work / "tested").replace(bento)
    size = bento.stat().st_size / 1e6
    return PackageReport(bento, size, time.perf_counter() - start, start_seconds, result.requests, result.latency_ms)


def example_requests(root: Path, params: Model) -> list[ExampleRequest]:
    """Test examples spread evenly over the classes, with the evaluation's answers. UserError where none can be read."""
    import pandas as pd

    from models.common.data.batches import batch_names, read_payloads

    model, kind = params.name, params.kind
    artifacts, folder = root / "artifacts" / model, root / "data" / model
    labels = ProgramSpec.load(artifacts / "program").labels
    path = artifacts / "evaluation" / "examples.parquet"
    if not path.exists():
        raise UserError(f"{path} is missing. Evaluate first: dvc repro evaluate@{model}")
    table = pd.read_parquet(path)
    local = [name for name in batch_names(folder) if (folder / f"{name}.parquet").exists()]
    rows = _evenly_spread(table[table["batch"].isin(local)])
    if not len(rows):
        raise UserError(f"{folder} has no batch with test examples. Fetch them: dvc pull -R {folder}")
    records = cast(list[dict[str, Any]], rows.to_dict("records"))
    pairs = zip(read_payloads(folder, rows), records, strict=True)
    service = kind.SERVICE
    return [ExampleRequest(service.form(payload), service.expected(row, labels)) for payload, row in pairs]


def _evenly_spread(table: "pd.DataFrame") -> "pd.DataFrame":
    ordered = table.sort_values([name for name in ("label", "id") if name in table])
    count = min(SMOKE_TEST_EXAMPLES, len(ordered))
    return ordered.iloc[[index * len(ordered) // count for index in range(count)]]


def _build(params: Model, version: str, program: Path, golden: Sequence[ExampleRequest], work: Path) -> Path:
    source, out = work / "source", work / f"{params.name}.bento"
    spec = ProgramSpec.load(program)
    write_bento_source(params, version, program, golden, source)
    (source / "build.json").write_text(json.dumps(_options(params, version, spec)))
    environment = os.environ | {"BENTOML_HOME": str(work / "store"), "BENTOML_DO_NOT_TRACK": "true"}
    environment.pop("PYTHONPATH", None)
    command = [python(), str(Path(__file__).parent / "packaging/build.py"), str(source), str(out)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not out.exists():
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RatchetError(f"The Bento of {params.name} could not be built: {output[-1]}")
    return out


def write_bento_source(
    params: Model, version: str, program: Path, golden: Sequence[ExampleRequest], into: Path
) -> None:
    """Writes the source folder of a Bento: code, program, golden examples and settings."""
    for name in service_modules(params.kind_name):
        _copy_module(name, into)
    (into / "service.py").write_text(SERVICE_SOURCE.format(kind=params.kind_name))
    shutil.copytree(program, into / "program")
    _write_golden(golden, into / "golden")
    settings = {
        "model": params.name,
        "version": version,
        "kind": params.kind_name,
        "labels": ProgramSpec.load(program).labels,
        **params.serve.model_dump(),
    }
    (into / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")


def service_modules(kind: str) -> list[str]:
    """Modules that the service of a kind imports, directly or through others; packages around them come empty."""
    return sorted(
        without_packages(closure_without_packages([f"models.{kind}.predictor", "models.common.program.bento_service"]))
    )


def _copy_module(name: str, into: Path) -> None:
    """One module with the pages beside it; the packages around it come empty."""
    source, parts = source_of(name), name.split(".")
    assert source, name
    for depth in range(1, len(parts)):
        (into / Path(*parts[:depth])).mkdir(parents=True, exist_ok=True)
        (into / Path(*parts[:depth], "__init__.py")).touch()
    folder = into / Path(*parts[:-1])
    for path in (source, *source.parent.glob("*.html")):
        shutil.copyfile(path, folder / path.name)


def _write_golden(requests: Sequence[ExampleRequest], folder: Path) -> None:
    folder.mkdir()
    answers = []
    for index, request in enumerate(requests):
        form = {name: f"{index}.{name}" for name in request.form}
        for name, file in form.items():
            (folder / file).write_bytes(request.form[name])
        answers.append({"form": form, "expected": request.expected})
    (folder / "answers.json").write_text(json.dumps(answers, indent=2) + "\n")


def _options(params: Model, version: str, spec: ProgramSpec) -> dict[str, Any]:
    """Options of bentoml.build; packages are pinned to those that the candidate was evaluated with."""
    origin = {key: str(value) for key, value in spec.provenance.items() if isinstance(value, (str, int))}
    packages = ("bentoml", *distributions(service_modules(params.kind_name)))
    return {
        "name": params.name,
        "version": version,
        "description": _description(params, version, origin),
        "labels": {"model": params.name, "kind": params.kind_name, **origin},
        "include": ["*"],
        "python": {
            "packages": _pinned_requirements(packages),
            "lock_packages": False,
        },
        "docker": {"python_version": f"{sys.version_info.major}.{sys.version_info.minor}"},
    }


def distributions(modules: Sequence[str]) -> set[str]:
    """What must be installed for modules of this project: names as in a requirements file."""
    known = packages_distributions()
    top_level = {name.split(".")[0] for module in modules if (path := source_of(module)) for name in imports(path)}
    return {known[top][0] for top in top_level - set(sys.stdlib_module_names) - set(PACKAGES) if top in known}


def _pinned_requirements(names: Sequence[str]) -> list[str]:
    """These packages and all that they need, as installed here: the Bento installs the same years from now."""
    versions: dict[str, str] = {}
    pending = [Requirement(name) for name in names]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name not in versions:
            versions[name] = installed(name)
            extras = requirement.extras | {""}
            dependencies = [Requirement(line) for line in requires(name) or []]
            pending += [
                other
                for other in dependencies
                if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in extras)
            ]
    return [f"{name}=={versions[name]}" for name in sorted(versions) if name != "bentoml"]  # bentoml.build adds itself


def _description(params: Model, version: str, origin: dict[str, str]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in {"kind": params.kind_name, **origin}.items())
    return f"# {params.name} {version}\n\nTrained, judged and packaged by Ratchet.\n\n| | |\n|---|---|\n{rows}\n"
