"""`ratchet gc`: the disk stays bounded, and nothing goes that anyone needs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from flows.up.server import SETTINGS
from models.common.errors import UserError
from tasks.gc import GcReport, collect
from tasks.overview import history
from tasks.project.fingerprint import find_local_judgement
from tasks.project.locks import lock
from tasks.project.registry import champion, fetch, rollback
from tasks.project.workspace import workspace
from tasks.retention.garbage import disk_usage
from tests.conftest import CODE, TINY_PARAMS, git
from tests.saved import PART, Saved, bytes_of, commit_files, object_path, promote, save, store
from tests.test_locks import holder, kill
from tests.world import World

ALL = 6  # files that only one candidate has
FEW = "retention: {candidates: 1, reports: 1, days: 30}\n"
OLD = time.time() - 40 * 86_400


def configure(project: Path, text: str = FEW) -> Path:
    """How much stays, committed."""
    path = project / "params.yaml"
    path.write_text(path.read_text() + text)
    git(project, "commit", "--quiet", "--all", "--message=retention")
    return project


@pytest.fixture
def kept_few(project: Path) -> Path:
    """A project that keeps one candidate of each model."""
    return configure(project)


def sizes(report: GcReport) -> dict[str, int]:
    """Bytes by category."""
    found: dict[str, int] = {}
    for row in report.rows:
        found[row.category] = found.get(row.category, 0) + row.size
    return found


def age(path: Path) -> Path:
    """Makes a file or a folder with all in it look old."""
    for each in [*path.rglob("*"), path]:
        os.utime(each, (OLD, OLD))
    return path


def test_bytes_of_old_candidates_go_and_a_dry_run_tells_how_much(kept_few: Path) -> None:
    old, middle, new = (save(kept_few, number) for number in range(3))
    told = collect(kept_few)
    assert (told.deleted, bytes_of(kept_few, old)) == (False, ALL)
    done = collect(kept_few, delete=True)
    assert [bytes_of(kept_few, each) for each in (old, middle, new)] == [0, 0, ALL]
    assert (told.rows, sizes(told)) == (done.rows, sizes(done))
    assert 8 * PART < sizes(done)["candidates"] < 8.1 * PART
    assert next(row for row in done.rows if row.category == "candidates").count == 2
    assert collect(kept_few, delete=True).rows == ()


def test_what_was_judged_stays_known_though_its_bytes_are_gone(kept_few: Path) -> None:
    old, new = save(kept_few, 0, verdict="REJECT"), save(kept_few, 1)
    before = history(kept_few, "digits")
    collect(kept_few, delete=True)
    assert history(kept_few, "digits") == before
    assert [(row.verdict, row.report) for row in before] == [("HOLD", None), ("REJECT", None)]  # no report was made
    ref = git(kept_few, "for-each-ref", f"--points-at={old.commit}", "--format=%(refname)")
    assert find_local_judgement(kept_few, "digits", ref.rpartition("/")[2]) == old.commit  # so UNCHANGED
    assert "refs/exps/" not in ref
    assert "refs/exps/" in git(kept_few, "for-each-ref", f"--points-at={new.commit}")


def test_the_run_cache_forgets_what_is_gone_and_keeps_the_rest(kept_few: Path) -> None:
    old, new = save(kept_few, 0), save(kept_few, 1)
    collect(kept_few, delete=True)
    notes = [path.read_text() for path in (kept_few / ".dvc/cache/runs").glob("*/*/*")]
    assert len(notes) == 1
    assert any(digest in notes[0] for digest in new.digests)
    assert not any(digest in notes[0] for digest in old.digests)
    assert all(any(folder.iterdir()) for folder in (kept_few / ".dvc/cache/runs").glob("*/*"))  # an empty one ends DVC


def test_every_version_can_still_be_rolled_back_to(kept_few: Path) -> None:
    versions = [save(kept_few, number, verdict="PROMOTE") for number in range(4)]
    for each in versions:
        promote(kept_few, each)
    rejected = [save(kept_few, 10 + number) for number in range(3)]
    collect(kept_few, delete=True)
    assert [bytes_of(kept_few, each) for each in rejected] == [0, 0, ALL]
    for number, each in enumerate(versions[:3]):
        back = rollback(kept_few, "digits", f"v1.{number}.0")
        assert back.commit == each.commit
        for part in ("program", "training", "digits.bento"):
            fetch(kept_few, back.commit, f"artifacts/digits/{part}", kept_few / "out" / str(number) / part)


def tag(project: Path, saved: Saved) -> None:
    git(project, "tag", "mine", saved.commit)


def branch(project: Path, saved: Saved) -> None:
    git(project, "branch", "theirs", saved.commit)


def child_of_a_branch(project: Path, saved: Saved) -> None:
    git(project, "branch", "mine", commit_files(project, {"x": "x"}, "later", 1, saved.commit))


def worktree(project: Path, saved: Saved) -> None:
    git(project, "worktree", "add", "--detach", str(project.parent / "elsewhere"), saved.commit)


def uncommitted(project: Path, saved: Saved) -> None:
    (project / "dvc.lock").write_text(git(project, "show", f"{saved.commit}:dvc.lock"))
    for name in ("report.html", "digits.bento"):
        pointer = project / f"artifacts/digits/{name}.dvc"
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(git(project, "show", f"{saved.commit}:artifacts/digits/{name}.dvc"))


def stash(project: Path, saved: Saved) -> None:
    uncommitted(project, saved)
    git(project, "stash", "--include-untracked")
    (project / "y").write_text("y")
    git(project, "stash", "--include-untracked")  # the one above is the second of the stack now


def another_model(project: Path, saved: Saved) -> None:
    """A model that has the very same bytes, and is kept."""
    files = {name: git(project, "show", f"{saved.commit}:{name}") for name in ("dvc.lock",)}
    files |= {
        f"artifacts/b/{name}.dvc": git(project, "show", f"{saved.commit}:artifacts/digits/{name}.dvc")
        for name in ("report.html", "digits.bento")
    }
    git(project, "update-ref", f"refs/ratchet/b/{'b' * 64}", commit_files(project, files, "b", 1))


def experiment(project: Path, saved: Saved) -> None:
    """A person's own, made from the candidate."""
    commit = commit_files(project, {"x": "x"}, "mine", 1, saved.commit)
    git(project, "update-ref", f"refs/exps/aa/{'a' * 38}/mine", commit)


def waiting_for_approval(project: Path, saved: Saved) -> None:
    git(project, "update-ref", "refs/ratchet/digits/approval-0002", saved.commit)


NAMED_BY: tuple[Callable[[Path, Saved], None], ...] = (
    tag,
    branch,
    child_of_a_branch,
    worktree,
    stash,
    uncommitted,
    another_model,
    experiment,
    waiting_for_approval,
)


def test_what_anything_else_names_stays(kept_few: Path) -> None:
    named = [save(kept_few, number) for number in range(len(NAMED_BY))]
    other, _ = save(kept_few, 100), save(kept_few, 101)
    for name_it, saved in zip(NAMED_BY, named, strict=True):
        name_it(kept_few, saved)
    collect(kept_few, delete=True)
    kept = {
        name_it.__name__ for name_it, saved in zip(NAMED_BY, named, strict=True) if bytes_of(kept_few, saved) == ALL
    }
    assert kept == {name_it.__name__ for name_it in NAMED_BY}
    assert bytes_of(kept_few, other) == 0


def test_only_the_last_entry_of_a_log_of_approvals_counts(kept_few: Path) -> None:
    declined, waiting, _ = (save(kept_few, number) for number in range(3))
    for number, each in enumerate((declined, waiting)):
        git(kept_few, "update-ref", f"refs/ratchet/digits/approval-{number:04d}", each.commit)
    collect(kept_few, delete=True)
    assert (bytes_of(kept_few, declined), bytes_of(kept_few, waiting)) == (0, ALL)


def test_a_candidate_whose_run_was_killed_before_it_was_judged_goes_like_any_other(kept_few: Path) -> None:
    killed, new = save(kept_few, 0, refs=False), save(kept_few, 1)
    collect(kept_few, delete=True)
    assert (bytes_of(kept_few, killed), bytes_of(kept_few, new)) == (0, ALL)


def test_data_never_goes_though_only_an_old_candidate_names_it(kept_few: Path) -> None:
    batch = store(kept_few / ".dvc/cache", b"labelled by hand, on a branch that was deleted")
    pointer = {"data/digits/one.parquet.dvc": f"outs:\n- md5: {batch}\n  path: one.parquet\n"}
    source = commit_files(kept_few, pointer, "data", 1)
    git(kept_few, "checkout", "--quiet", "--detach", source)
    old = save(kept_few, 0)
    git(kept_few, "checkout", "--quiet", "main")
    save(kept_few, 1)
    collect(kept_few, delete=True)
    assert bytes_of(kept_few, old) == 0
    assert object_path(kept_few / ".dvc/cache", batch).exists()


def test_one_that_was_killed_in_the_middle_is_finished_by_the_next(
    kept_few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = save(kept_few, 0), save(kept_few, 1)
    unlink, left = Path.unlink, iter(range(2))

    def dies_after_two(path: Path, missing_ok: bool = False) -> None:
        if "files/md5" in str(path):
            next(left)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", dies_after_two)
    with pytest.raises(StopIteration):
        collect(kept_few, delete=True)
    monkeypatch.undo()
    assert bytes_of(kept_few, old) == ALL - 2
    collect(kept_few, delete=True)
    assert bytes_of(kept_few, old) == 0


def test_a_model_that_is_being_retrained_is_left_alone_and_others_are_not(kept_few: Path) -> None:
    busy, _ = save(kept_few, 0), save(kept_few, 1)
    free, _ = save(kept_few, 0, "letters"), save(kept_few, 1, "letters")
    process, _ = holder(kept_few / ".ratchet")
    report = collect(kept_few, delete=True)
    kill(process)
    assert (bytes_of(kept_few, busy), bytes_of(kept_few, free)) == (ALL, 0)
    assert any("digits is being retrained" in note for note in report.notes)
    with workspace(kept_few, "digits+forced", busy.commit):
        collect_elsewhere(kept_few)
    assert bytes_of(kept_few, busy) == ALL
    collect(kept_few, delete=True)
    assert bytes_of(kept_few, busy) == 0


def collect_elsewhere(project: Path) -> None:
    """In another process, as locks are between processes."""
    code = "from pathlib import Path; from tasks.gc import collect; collect(Path.cwd(), delete=True)"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)


def test_a_run_that_begins_meanwhile_waits_and_is_not_refused(kept_few: Path) -> None:
    code = "from tasks.project.workspace import workspace; from pathlib import Path\n"
    code += "with workspace(Path.cwd(), 'digits', 'HEAD'): print('began', flush=True)"
    with lock(kept_few / ".ratchet", "gc"):  # as collect holds it, and the model
        begun = subprocess.Popen([sys.executable, "-c", code], cwd=kept_few, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            begun.wait(1)
    assert begun.communicate(timeout=30)[0] == "began\n"


def test_what_a_run_has_made_but_not_saved_yet_stays(kept_few: Path) -> None:
    old, _ = save(kept_few, 0, "letters"), save(kept_few, 1, "letters")
    with workspace(kept_few, "digits", "HEAD") as tree:  # has made just what an old candidate of letters had
        (tree / "dvc.lock").write_text(git(kept_few, "show", f"{old.commit}:dvc.lock"))
        collect_elsewhere(kept_few)
        assert tree.exists()
    assert bytes_of(kept_few, old) == 4  # program and training, each a list and a file


def test_disk_is_bounded_however_many_candidates_come(project: Path) -> None:
    configure(project, "retention: {candidates: 2, reports: 2}\n")
    promote(project, save(project, 0, verdict="PROMOTE"))
    places = [project / ".dvc/cache", project / ".ratchet", project / "artifacts"]
    used = []
    for number in range(1, 9):
        saved = save(project, number)
        run = project / "artifacts/digits/runs" / saved.name
        (run / "data_docs").mkdir(parents=True)
        (run / "report.html").write_bytes(b"x" * PART)
        (run / "data_docs/index.html").write_bytes(b"x" * PART)
        decoded = project / f".ratchet/decoded/digits-8px/one-{number:08x}.npy"
        decoded.parent.mkdir(parents=True, exist_ok=True)
        decoded.write_bytes(b"x" * PART)
        collect(project, delete=True)
        used.append(sum(map(disk_usage, places)))
    assert max(used[2:]) - min(used[2:]) < 1000, used
    assert used[-1] < 17 * PART, used  # a champion and two more of four parts each, reports of two


def test_the_latest_report_and_the_one_of_what_is_in_production_stay(kept_few: Path) -> None:
    saved = [save(kept_few, number) for number in range(5)]
    promote(kept_few, saved[0])
    runs = kept_few / "artifacts/digits/runs"
    for number, each in enumerate(saved):
        (runs / each.name).mkdir(parents=True)
        (runs / each.name / "report.html").write_text("report")
        os.utime(runs / each.name, (OLD + number, OLD + number))
    (runs / "latest").symlink_to(saved[2].name)
    report = collect(kept_few, delete=True)
    assert {path.name for path in runs.iterdir()} == {"latest", *(saved[number].name for number in (0, 2, 4))}
    assert sizes(report)["reports"] == 2 * len("report")
    told = {row.candidate: row.report for row in history(kept_few, "digits")}
    assert told[saved[4].name] == str(runs / saved[4].name / "report.html")
    assert told[saved[1].name] is None


def test_a_service_that_runs_or_is_in_production_stays_unpacked(kept_few: Path) -> None:
    promote(kept_few, save(kept_few, 0))
    bentos = kept_few / ".ratchet/bentos"
    names = ("digits-v1.0.0-aaaaaaaaaaaa", "digits-v0.1.0-bbbbbbbbbbbb", "digits-v0.2.0-cccccccccccc", "served")
    for name in names:
        (bentos / name).mkdir(parents=True)
        (bentos / name / "bento.yaml").write_text("name: digits")
    for version in ("v1.0.0", "v0.1.0"):
        (bentos / f"served/digits-{version}.bento").write_text("bento")
    age(bentos)
    code = "import time; print('ready', flush=True); time.sleep(60)"
    serving = subprocess.Popen([sys.executable, "-c", code], cwd=bentos / names[1], stdout=subprocess.PIPE, text=True)
    assert serving.stdout
    serving.stdout.readline()
    (bentos / "digits-v0.3.0-dddddddddddd").mkdir()  # unpacked a moment ago, about to be served
    collect(kept_few, delete=True)
    kill(serving)
    left = {str(path.relative_to(bentos)) for path in bentos.rglob("digits-*")}
    assert left == {names[0], names[1], "digits-v0.3.0-dddddddddddd", "served/digits-v1.0.0.bento"}
    collect(kept_few, delete=True)
    assert not (bentos / names[1]).exists()


def test_decoded_examples_stay_while_a_branch_or_a_kept_candidate_has_their_batch(kept_few: Path) -> None:
    here, gone = "1" * 32, "2" * 32
    for number, digest in enumerate((gone, here)):
        pointer = {"data/digits/one.parquet.dvc": f"outs:\n- md5: '{digest}'\n  path: one.parquet\n"}
        git(kept_few, "reset", "--quiet", "--hard", commit_files(kept_few, pointer, "data", number))
    folder = kept_few / ".ratchet/decoded/digits-8px"
    folder.mkdir(parents=True)
    names = [f"one-{digest[:8]}{suffix}" for digest in (here, gone) for suffix in (".npy", ".i16", ".ends.npy")]
    for name in names:
        (folder / name).write_text("array")
    collect(kept_few, delete=True)
    assert {path.name for path in folder.iterdir()} == set(names[:3])
    for name in names[:3]:
        os.utime(folder / name, (OLD, OLD))  # of a converter that is no more
    collect(kept_few, delete=True)
    assert not list(folder.iterdir())


def test_logs_and_what_killed_processes_left_go_by_age(kept_few: Path) -> None:
    home = kept_few / ".ratchet"
    names = ("logs/{}-up", "predictions/{}-digits/data.log", "quarantine/{}-digits/zip.csv", "checkpoints/{}-a/last.pt")
    for path in (home / name.format(how_old) for name in names for how_old in ("old", "new")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for path in home.glob("*/old-*"):
        age(path)
    process, adding = holder(home)
    age(adding)
    reports = [collect(kept_few, delete=True)]
    in_use = (home / "checkpoints/old-a").exists(), adding.exists()  # of a run, and an `add`, that take weeks
    kill(process)
    reports.append(collect(kept_few, delete=True))
    assert in_use == (True, True)
    assert [set(sizes(report)) for report in reports] == [{"logs"}, {"checkpoints", "left-overs"}]
    left = [path for name in names for path in (home / name.partition("/")[0]).rglob("*") if path.is_file()]
    assert len(left) == 4
    assert all("new-" in str(path) for path in left)
    assert not list((home / "adding").iterdir())


def test_the_worktree_of_a_killed_run_goes_at_once(kept_few: Path) -> None:
    code = "import os; from tasks.project.workspace import workspace; from pathlib import Path\n"
    code += "with workspace(Path.cwd(), 'digits', 'HEAD'): os._exit(9)"
    subprocess.run([sys.executable, "-c", code], cwd=kept_few, check=False)
    assert len(git(kept_few, "worktree", "list").splitlines()) == 2
    assert sizes(collect(kept_few))["left-overs"] > 0
    assert len(git(kept_few, "worktree", "list").splitlines()) == 2
    collect(kept_few, delete=True)
    assert len(git(kept_few, "worktree", "list").splitlines()) == 1


def test_outputs_of_runs_that_never_came_to_a_candidate_go_by_age(kept_few: Path) -> None:
    killed = save(kept_few, 0, refs=False)
    git(kept_few, "update-ref", "-d", f"refs/exps/{killed.commit[:2]}/{killed.commit[2:]}/{killed.name}")
    collect(kept_few, delete=True)
    assert bytes_of(kept_few, killed) == ALL  # the next run goes on from there
    age(kept_few / ".dvc/cache/runs")
    collect(kept_few, delete=True)
    assert bytes_of(kept_few, killed) == 2  # a report and a Bento, which no file of DVC's names any more


@pytest.fixture
def world(_template: Path, tmp_path: Path) -> World:
    """A shared project that keeps one candidate."""
    return World.make(tmp_path / "world", _template, TINY_PARAMS + FEW)


def publish(world: World, *saved: Saved) -> None:
    git(world.project, "push", "--quiet", "origin", "refs/ratchet/*:refs/ratchet/*", "refs/exps/*:refs/exps/*")
    cache = world.project / ".dvc/cache"
    for path in (cache / "files/md5").glob("*/*"):
        copy = world.folder / "bytes" / path.relative_to(cache)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            copy.write_bytes(path.read_bytes())


def on_remote(world: World, saved: Saved) -> int:
    return sum(object_path(world.folder / "bytes", digest).exists() for digest in saved.digests)


@pytest.mark.parametrize("ref", ["refs/tags/theirs", "refs/heads/theirs"])
def test_what_somebody_named_on_the_remote_stays_here(world: World, ref: str) -> None:
    named, other, _ = (save(world.project, number) for number in range(3))
    later = commit_files(world.project, {"x": "x"}, "theirs", 1, named.commit)
    git(world.project, "push", "--quiet", "origin", f"{later}:{ref}")
    git(world.project, "update-ref", "-d", "refs/remotes/origin/theirs")
    git(world.project, "prune", "--expire=now")
    collect(world.project, delete=True)
    assert (bytes_of(world.project, named), bytes_of(world.project, other)) == (ALL, 0)


def test_with_the_remote_away_candidates_stay_and_the_rest_goes(world: World) -> None:
    old, _ = save(world.project, 0), save(world.project, 1)
    (world.project / ".ratchet/logs").mkdir(parents=True)
    age(world.project / ".ratchet/logs").joinpath("up.log").write_text("x")
    age(world.project / ".ratchet/logs/up.log")
    world.origin.rename(world.folder / "away")
    report = collect(world.project, delete=True)
    assert bytes_of(world.project, old) == ALL
    assert set(sizes(report)) == {"logs"}
    assert "not known which are needed" in report.notes[0]


def test_the_remotes_are_cleared_only_when_asked_to_and_only_of_what_nobody_names(world: World) -> None:
    old, named, new = (save(world.project, number) for number in range(3))
    publish(world, old, named, new)
    git(world.project, "push", "--quiet", "origin", f"{named.commit}:refs/tags/theirs")
    collect(world.project, delete=True)
    assert (bytes_of(world.project, old), on_remote(world, old)) == (0, ALL)
    told = collect(world.project, remote=True)
    assert on_remote(world, old) == ALL
    done = collect(world.project, delete=True, remote=True)
    assert told.rows == done.rows
    assert [on_remote(world, each) for each in (old, named, new)] == [0, ALL, ALL]
    left = git(world.origin, "for-each-ref", "--format=%(objectname)", "refs/exps/").split()
    assert sorted(left) == sorted([named.commit, new.commit])
    assert git(world.origin, "for-each-ref", "--points-at", old.commit, "--format=%(refname)").startswith(
        "refs/ratchet"
    )


def test_a_cache_that_others_may_share_is_left_alone(kept_few: Path, tmp_path: Path) -> None:
    old, _ = save(kept_few, 0), save(kept_few, 1)
    (kept_few / ".dvc/cache").rename(tmp_path / "shared")
    (kept_few / ".dvc/config.local").write_text(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    report = collect(kept_few, delete=True)
    assert all(object_path(tmp_path / "shared", digest).exists() for digest in old.digests)
    assert "others may use it" in report.notes[0]


def test_a_thousand_commits_take_seconds(kept_few: Path) -> None:
    save(kept_few, 0)
    lines, parent = [], git(kept_few, "rev-parse", "HEAD")
    for number in range(1000):
        pointer = f"outs:\n- md5: {number:032x}\n  path: x\n"
        lines.append(f"commit refs/heads/long\ncommitter T <t@example.org> {1_600_000_000 + number} +0000\ndata 1\nx\n")
        lines.append(f"from {parent}\n" if not number else "")
        lines.append(f"M 100644 inline data/digits/{number}.parquet.dvc\ndata {len(pointer)}\n{pointer}\n")
    subprocess.run(["git", "fast-import", "--quiet"], cwd=kept_few, input="".join(lines), text=True, check=True)
    report = collect(kept_few)
    assert report.seconds < 10, report.seconds  # 0.5 s on a quiet machine


def test_a_mistake_in_params_is_one_line(project: Path) -> None:
    (project / "params.yaml").write_text(TINY_PARAMS + "retention: {candidates: 0}\n")
    with pytest.raises(UserError, match=r"params\.yaml: retention\.candidates is 0: .* greater than or equal to 1"):
        collect(project)


def test_the_command_tells_first_and_deletes_when_told_to(kept_few: Path) -> None:
    old, _ = save(kept_few, 0), save(kept_few, 1)

    def gc(*options: str) -> str:
        command = [sys.executable, "-m", "flows.cli", "gc", *options]
        env = os.environ | {"PYTHONPATH": str(CODE)}
        return subprocess.run(command, cwd=kept_few, env=env, check=True, capture_output=True, text=True).stdout

    told = gc()
    assert "Would delete 0.1 MB. To do it: ratchet gc --delete" in told
    assert bytes_of(kept_few, old) == ALL
    answer = json.loads(gc("--yes", "--json"))
    assert answer["deleted"]
    assert answer["size"] > 4 * PART
    assert bytes_of(kept_few, old) == 0
    assert champion(kept_few, "digits") is None


def test_prefect_deletes_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings.models.server.events import ServerEventsSettings
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    vacuum = ServerServicesDBVacuumSettings()
    assert vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert vacuum.retention_period == timedelta(days=60)
    assert ServerEventsSettings().retention_period == timedelta(days=7)
