"""`ratchet gc` beside real DVC: while a run is going, and before an old revision is retrained."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.gating.verdict import Verdict
from tasks.gc import GcReport, collect
from tasks.project.fingerprint import find_judgement, read_inputs
from tasks.project.registry import fetch
from tasks.project.repository import dvc
from tasks.project.workspace import workspace
from tasks.promote import STAGES, Candidate, record_judgement, save
from tests.conftest import git
from tests.saved import bytes_of, object_path, store
from tests.saved import save as save_by_hand

BATCH = b"examples"
OUTPUTS = {
    "validate": ["validation"],
    "initial_weights": ["initial_weights"],
    "train": ["program", "training"],
    "evaluate": ["evaluation"],
}
STAGE = """
import random, sys
from pathlib import Path
for folder in (Path("artifacts", sys.argv[1], name) for name in {outputs}):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "passed.json").write_bytes(random.Random(str(folder) + Path("params.yaml").read_text()).randbytes(20000))
"""


@pytest.fixture
def project(project: Path) -> Path:
    """A project whose stages take no time; it keeps one candidate of each model."""
    for stage, outputs in OUTPUTS.items():
        (project / f"tasks/{stage}.py").write_text(STAGE.format(outputs=outputs))
    data = project / "data/digits"
    data.mkdir(parents=True)
    digest = store(project / ".dvc/cache", BATCH)
    pointer = f"outs:\n- md5: {digest}\n  size: {len(BATCH)}\n  hash: md5\n  path: one.parquet\n"
    (data / "one.parquet.dvc").write_text(pointer)
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "retention: {candidates: 1}\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=quick stages")
    return project


def run(project: Path) -> tuple[Candidate, set[str]]:
    """A run to its verdict, and the stages that DVC really ran."""
    inputs = read_inputs(project, "digits")
    with workspace(project, "digits", inputs.commit) as tree:
        (tree / "data/digits/one.parquet").write_bytes(BATCH)
        log = dvc(tree, "repro", *(f"{stage}@digits" for stage in STAGES))
        folder = tree / "artifacts/digits"
        verdict = Verdict("HOLD", ("not shown to be better",))
        (folder / "verdict.json").write_text(json.dumps(verdict.to_json()))
        (folder / "report.html").write_text(f"report of {inputs.fingerprint}")
        candidate = save(tree, inputs, verdict, None)
        record_judgement(tree, candidate)
    return candidate, {stage for stage in STAGES if f"> python -m tasks.{stage} digits" in log}


def collect_until(done: threading.Event, project: Path) -> list[GcReport]:
    """Again and again; each time another model has something that goes."""
    reports: list[GcReport] = []
    while not done.is_set():
        save_by_hand(project, len(reports), "letters")
        reports.append(collect(project, delete=True))
        done.wait(0.3)
    return reports


def test_beside_a_run_it_harms_nothing_and_after_it_an_old_revision_trains_again(project: Path) -> None:
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        collecting = pool.submit(collect_until, done, project)
        try:
            candidate, ran = run(project)
        finally:
            done.set()
        reports = collecting.result()
    assert ran == set(STAGES)
    assert sum(bool(report.notes) for report in reports) > 3  # while the run was going
    assert sum(bool(report.rows) for report in reports) > 3
    parts = ("program", "training", "evaluation", "validation", "report.html")
    for part in parts:
        fetch(project, candidate.commit, f"artifacts/digits/{part}", project / "out" / part)
    newer = save_by_hand(project, 100_000_000)
    collect(project, delete=True)
    assert bytes_of(project, newer) == len(newer.digests)
    lock = git(project, "show", f"{candidate.commit}:dvc.lock")
    left = [line for line in lock.splitlines() if line.strip().endswith(".dir")]
    left = [line for line in left if object_path(project / ".dvc/cache", line.split()[1]).exists()]
    assert left == []
    assert find_judgement(project, "digits", read_inputs(project, "digits").fingerprint) == candidate.commit
    again, ran = run(project)
    assert ran == set(STAGES)
    for part in parts:
        fetch(project, again.commit, f"artifacts/digits/{part}", project / "again" / part)
        first, second = project / "out" / part / "passed.json", project / "again" / part / "passed.json"
        assert part == "report.html" or first.read_bytes() == second.read_bytes()
