"""Killed at any of its writes, for real (SIGKILL): production answers on, nothing is half-done, and the next run clears
up and finishes. Where to kill is found by watching a run (tests/killing.py), so a new write is killed at as well.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml

from models.common.data.batches import batch_names, read_manifest
from models.common.errors import RatchetError, RegistryError, UserError
from tasks.add import add
from tasks.packaging.champion_bento import champion_bento
from tasks.project import intact
from tasks.project.outputs import digest_of, fetch_output, output_digest
from tasks.project.registry import champion
from tasks.project.workspace import workspace
from tasks.remove import remove
from tasks.run_outcome import copy_results
from tests.conftest import git
from tests.digits import write_digits
from tests.killing import Point, points, spelled
from tests.world import World

pytestmark = pytest.mark.timeout(600)
RETRAIN = ("retrain", "digits", "--force", "--json")  # judged again, and promoted again by the world's gate
PROMOTED_ANEW = ("gate: {metric: accuracy", "gate: {rule: non_inferior, margin: 0.5, metric: accuracy")


@pytest.fixture(scope="module")
def filled(_template: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A shared project with 200 digits, nothing trained yet. To be copied."""
    world = World.make(tmp_path_factory.mktemp("filled"), _template)
    assert add(world.project, "digits", digits).pushed
    return world


@pytest.fixture(scope="module")
def promoted(filled: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same with a champion, whose next candidate is promoted whenever it is about as good. To be copied."""
    world = filled.copy(tmp_path_factory.mktemp("promoted") / "world")
    answer = world.ratchet("retrain", "digits", "--json")
    assert answer.json["state"] == "PROMOTED", answer.err
    world.edit(*PROMOTED_ANEW)
    git(world.project, "push", "--quiet", "origin", "main")
    return world


@pytest.fixture
def world(promoted: World, tmp_path: Path) -> Iterator[World]:
    """A copy of the promoted project; at the end nothing of it is left running."""
    copy = promoted.copy(tmp_path / "world")
    yield copy
    assert not processes_of(copy)


def killed(world: World, point: Point, moment: str, *arguments: str) -> bool:
    """Kills `ratchet ARGUMENTS` at the point; whether it got that far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILL_AT", spelled(point, moment))
        answer = world.ratchet(*arguments, module="tests.killing")
    assert answer.code in {0, -signal.SIGKILL}, (point, moment, answer.err)
    return answer.code != 0


def listed(world: World, *arguments: str) -> list[tuple[Point, str]]:
    """All points of a run, found by letting it run to its end."""
    listing = world.folder / "points"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILL_AT", f"list:{listing}")
        assert world.ratchet(*arguments, module="tests.killing").code == 0
    return points(listing)


def processes_of(world: World) -> list[psutil.Process]:
    """What works in the world's folder, after it had time to end by itself."""
    deadline = time.monotonic() + 30
    while found := [process for process in psutil.process_iter() if _works_in(process, world.folder)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return found


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def registered(repository: Path) -> dict[str, str]:
    """Tags and judgements of a repository: {ref: object}."""
    listing = git(repository, "for-each-ref", "--format=%(refname) %(objectname)", "refs/tags", "refs/ratchet")
    return dict(line.split() for line in listing.splitlines())


def commits_of(repository: Path, pattern: str) -> list[str]:
    return git(repository, "for-each-ref", "--format=%(*objectname)%(objectname)", pattern).splitlines()


def check_production(world: World, number: int) -> int:
    """That what is in production is whole, there and here, and as before or one promotion on; gives its number."""
    remote = registered(world.origin)
    assert {ref: value for ref, value in registered(world.project).items() if remote.get(ref) != value} == {}
    current = champion(world.project, "digits")  # synchronises, as every command does
    assert current is not None
    assert current.number in {number, number + 1}
    assert registered(world.project) == remote
    numbers = [ref.rpartition("#")[2] for ref in remote if ref.startswith("refs/tags/digits#production#")]
    assert sorted(map(int, numbers)) == list(range(1, current.number + 1))
    names = {name for name in remote if name.startswith("refs/tags/")}
    assert {name.replace("tags/digits-program", "tags/digits") for name in names} <= names
    assert len(names) == 4 * current.number  # version and stage of the Bento and of the program
    assert current.commit in set(remote.values())  # its judgement
    lock = yaml.safe_load(git(world.project, "show", f"{current.commit}:dvc.lock"))["stages"]
    bento = yaml.safe_load(git(world.project, "show", f"{current.commit}:artifacts/digits/digits.bento.dvc"))
    for out in (*(out for stage in lock.values() for out in stage["outs"]), *bento["outs"]):
        assert (world.folder / "bytes/files/md5" / out["md5"][:2] / out["md5"][2:]).exists(), out["path"]
    return current.number


def leftovers(world: World) -> list[str]:
    """What is there after a finished run and should not be."""
    home = world.project / ".ratchet"
    folders = [*home.glob("work/*"), *home.glob("bentos/.*"), *home.glob("adding/*"), *home.glob("removing/*")]
    locks = [*(world.project / ".git").rglob("*.lock"), *home.glob("rebasing")]
    worktrees = git(world.project, "worktree", "list").splitlines()[1:]
    runs = [*(world.project / "artifacts/digits/runs").glob(".latest*")]
    return [*map(str, (*folders, *locks, *runs)), *worktrees, *git(world.project, "status", "--porcelain").splitlines()]


def test_killed_where_it_hurts_production_answers_and_the_next_run_clears_up(world: World) -> None:
    """The short form of the next test."""
    check_production(world, 1)
    (world.project / "artifacts/digits/runs/.latest-digits-00000000").symlink_to("of a run killed right there")
    for label, moment in (
        ("sh watchdog * in tasks.*", "alone"),
        ("git update-ref in tasks.project.registry.*", "before"),
    ):
        assert killed(world, Point(label, 1, 4.0), moment, *RETRAIN), label
    assert check_production(world, 1) == 2  # the remote took it: done, whatever this clone knew
    assert world.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"
    assert len(leftovers(world)) == 3  # the worktree of the last kill, as a folder and in git, and the link
    with workspace(world.project, "digits", "HEAD") as tree:
        copy_results(tree, "digits", "digits-11111111")
    assert not leftovers(world)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_write_of_a_retrain_production_answers_and_the_next_run_finishes(
    world: World, tmp_path: Path
) -> None:
    """Each run is the one that has to get over the kill before it, and is killed further on."""
    found = listed(world.copy(tmp_path / "watched"), *RETRAIN)
    assert {moment for _, moment in found} == {"before", "during", "alone"}
    number = 1
    for point, moment in found:
        reached = killed(world, point, moment, *RETRAIN)
        number = check_production(world, number)
        report(point, moment, "killed" if reached else "not reached")
        assert len(list((world.project / ".ratchet/work").iterdir())) <= 1
        assert len(list((world.project / ".ratchet/bentos").glob(".packaging-*"))) <= 1
    answer = world.ratchet(*RETRAIN)
    assert answer.json["state"] == "PROMOTED", answer.err
    check_production(world, number)
    assert not leftovers(world)


def report(point: Point, moment: str, text: str) -> None:
    """A line of the table that `pytest -s` shows, or that the file named by KILL_TABLE gets."""
    if table := os.environ.get("KILL_TABLE"):
        with Path(table).open("a") as file:
            file.write(f"{point.label} | {point.count} | {moment} | {text}\n")


def published_batches(world: World) -> set[str]:
    """Batches on the shared branch, the bytes of each of which anyone can fetch."""
    found = set()
    for path in git(world.origin, "ls-tree", "-r", "--name-only", "main", "data").splitlines():
        if path.endswith(".dvc"):
            digest = output_digest(world.origin, "main", path.removesuffix(".dvc"))
            assert digest_of(world.folder / "bytes/files/md5" / digest[:2] / digest[2:]) == digest, path
            found.add(Path(path).name.removesuffix(".parquet.dvc"))
    return found


def check_killed_add(world: World, sources: tuple[Path, Path], point: Point, moment: str) -> None:
    """A killed add is as if it had never been, or is finished and published by whatever is added next."""
    before = published_batches(world)
    assert killed(world, point, moment, "add", "digits", str(sources[0])), point
    assert len(published_batches(world) - before) <= 1
    add(world.project, "digits", sources[1])
    assert git(world.project, "rev-parse", "HEAD") == git(world.origin, "rev-parse", "main")
    add(world.project, "digits", sources[0])
    assert len(published_batches(world) - before) == 2
    assert len(read_manifest(world.project / "data/digits")) == 200 + 30 + 20
    assert not leftovers(world)


def check_killed_removal(world: World, point: Point, moment: str) -> None:
    """A killed removal is taken back or done; the same command again ends it."""
    (batch,) = published_batches(world)
    assert killed(world, point, moment, "remove", "digits", batch), point
    assert published_batches(world) <= {batch}
    with suppress(UserError):  # it had been committed: there is no such batch any more, which is published now
        assert remove(world.project, "digits", batch).rows == 200
    assert published_batches(world) == set()
    assert git(world.project, "rev-parse", "HEAD") == git(world.origin, "rev-parse", "main")
    assert not leftovers(world)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """30 and 20 digits that the project does not have."""
    folder = tmp_path_factory.mktemp("sources")
    return write_digits(folder / "a", 200, 230), write_digits(folder / "b", 230, 250)


def test_an_add_or_removal_killed_before_its_push_is_published_by_the_next_one(
    filled: World, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    """The short form of the next test."""
    removing = filled.copy(tmp_path / "removing")
    check_killed_add(
        filled.copy(tmp_path / "adding"),
        sources,
        Point("* in tasks.project.publishing._push_bytes", 1, 1.0),
        "before",
    )
    check_killed_removal(removing, Point("git commit in tasks.remove.*", 1, 0.01), "before")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_add_or_removal_killed_at_any_write_is_taken_back_or_published_by_the_next_one(
    filled: World, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    adding = ("add", "digits", str(sources[0]))
    for point, moment in listed(filled.copy(tmp_path / "adding"), *adding):
        check_killed_add(filled.copy(tmp_path / "add"), sources, point, moment)
        report(point, moment, "killed")
        shutil.rmtree(tmp_path / "add")
    removing = ("remove", "digits", *published_batches(filled))
    for point, moment in listed(filled.copy(tmp_path / "removing"), *removing):
        check_killed_removal(filled.copy(tmp_path / "remove"), point, moment)
        report(point, moment, "killed")
        shutil.rmtree(tmp_path / "remove")


def flip_a_byte(path: Path) -> None:
    """Damages a file as a disk does, write-protected or not."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)  # which DVC takes for a promise that nothing changed it


def stored(world: World, path: str, commit: str) -> tuple[Path, Path]:
    """Where the cache and the DVC remote have the largest file of a commit's output."""
    digest = output_digest(world.project, commit, path)
    cache, remote = world.project / ".dvc/cache/files/md5", world.folder / "bytes/files/md5"
    places = [f"{digest[:2]}/{digest[2:]}"]
    if digest.endswith(".dir"):
        entries = json.loads((cache / places[0]).read_text())
        places = [f"{entry['md5'][:2]}/{entry['md5'][2:]}" for entry in entries]
    largest = max(places, key=lambda place: (cache / place).stat().st_size)
    return cache / largest, remote / largest


@pytest.mark.parametrize("output", ["program", "training", "digits.bento"])
def test_a_damaged_champion_is_fetched_again_or_refused_and_never_used(
    world: World, tmp_path: Path, output: str
) -> None:
    path, current = f"artifacts/digits/{output}", champion(world.project, "digits")
    assert current
    cached, remote = stored(world, path, current.commit)
    whole = cached.read_bytes()
    flip_a_byte(cached)
    found = fetch_output(world.project, current.commit, path, tmp_path / "found")
    assert digest_of(found) == output_digest(world.project, current.commit, path)
    flip_a_byte(remote)
    cached.unlink(missing_ok=True)
    with pytest.raises(RegistryError, match=rf"{path} of candidate \w+ is damaged on the DVC remote: its MD5 is"):
        fetch_output(world.project, current.commit, path, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    remote.unlink()
    remote.write_bytes(whole)
    fetch_output(world.project, current.commit, path, tmp_path / "again")


def test_a_damaged_copy_of_the_bento_is_not_served(world: World) -> None:
    served = champion_bento(world.project, "digits")
    whole = served.read_bytes()
    flip_a_byte(served)
    assert champion_bento(world.project, "digits").read_bytes() == whole


def test_a_damaged_batch_or_stage_is_fetched_again_made_again_or_refused(world: World) -> None:
    batch = f"data/digits/{batch_names(world.project / 'data/digits')[0]}.parquet"
    evaluation = "artifacts/digits/evaluation"
    commit = git(world.project, "rev-parse", "digits#production#1^{commit}")
    lines: list[str] = []

    def run(stage: str) -> bool:
        return intact.reproduce(tree, stage, "digits", lambda line, _shown: lines.append(line))

    flip_a_byte(stored(world, batch, "HEAD")[0])
    for place in stored(world, evaluation, commit):
        flip_a_byte(place)
    with workspace(world.project, "digits", "HEAD") as tree:
        run("validate")
        assert digest_of(tree / batch) == output_digest(world.project, "HEAD", batch)
        run("train")
        run("evaluate")
        assert digest_of(tree / evaluation) == output_digest(world.project, commit, evaluation)
    assert f"{batch} is damaged in the DVC cache; fetching it again" in lines
    assert f"The remote has no undamaged {evaluation}; running evaluate again" in lines
    for place in stored(world, batch, "HEAD"):
        flip_a_byte(place)
    with (
        pytest.raises(RatchetError, match=f"{batch} is damaged, and no undamaged copy is on the DVC remote"),
        workspace(world.project, "digits", "HEAD") as tree,
    ):
        run("validate")


@contextmanager
def refused(world: World, refs: str) -> Iterator[None]:
    """The git remote takes no such refs."""
    hook = world.origin / "hooks/update"
    hook.write_text(f'#!/bin/sh\ncase "$1" in {refs}) echo protected >&2; exit 1;; esac\n')
    hook.chmod(0o755)
    yield
    hook.unlink()


@contextmanager
def no_bytes(world: World) -> Iterator[None]:
    """The DVC remote cannot be written to or read: there is a file in its place."""
    store, away = world.folder / "bytes", world.folder / "bytes.away"
    store.rename(away)
    store.touch()
    yield
    store.unlink()
    away.rename(store)


@contextmanager
def unplugged(world: World) -> Iterator[None]:
    """The git remote, which goes away in mid-run, is back at the end."""
    yield
    world.origin.with_suffix(".away").rename(world.origin)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_remote_that_is_away_or_refuses_at_any_phase_is_one_line_and_the_next_run_is_fine(world: World) -> None:
    before = registered(world.origin)
    faults = [
        (refused(world, "refs/exps/*"), None, 5),
        (refused(world, "refs/tags/*"), None, 5),
        (no_bytes(world), None, 5),
        (unplugged(world), "tasks.project.registry:fetch_champion", 4),
        (unplugged(world), "tasks.project.intact:reproduce", 4),
        (unplugged(world), "tasks.promote:save", 5),
        (unplugged(world), "tasks.promote:publish_candidate", 5),
    ]
    for fault, point, code in faults:
        with fault:
            module = "tests.interfere" if point else "flows.cli"
            answer = world.ratchet(*([point, "unplug"] if point else []), *RETRAIN, module=module)
        assert answer.code == code, (point, answer.error)
        report(Point(str(point), 1), answer.error, "refused")
        assert registered(world.origin) == registered(world.project) == before, answer.error
        assert not leftovers(world), answer.error
    assert world.ratchet(*RETRAIN).json["state"] == "PROMOTED"
    check_production(world, 1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, whose size a test changes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_free(disk: Path, size: float) -> None:
    """Lets the disk have `size` bytes that are not used yet."""
    total = int(shutil.disk_usage(disk).used + size)
    subprocess.run(["mount", "-o", f"remount,size={total}", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("arguments", [RETRAIN, ("add", "digits", "{more}")], ids=["retrain", "add"])
def test_a_disk_that_is_full_at_any_step_is_one_line_and_the_next_run_is_fine(
    promoted: World, disk: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    arguments = tuple(word.format(more=sources[0]) for word in arguments)
    world = promoted.copy(disk / "world")
    (disk / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(disk / "tmp"))
    before, head = registered(world.origin), git(world.project, "rev-parse", "HEAD")
    failed = 0
    for megabytes in (0, 0.01, 0.05, 0.2, 1, 3, 6, 9, 10, 11, 12, 14):
        leave_free(disk, megabytes * 1e6)
        answer = world.ratchet(*arguments)
        if answer.code == 0:
            break
        failed += 1
        leave_free(disk, 100e6)
        report(Point(arguments[0], 1), f"{megabytes} MB free", answer.error)
        assert registered(world.origin) == before, answer.error
        assert git(world.project, "rev-parse", "HEAD") == head or answer.code == 5
    assert failed > 2
    leave_free(disk, 100e6)
    assert world.ratchet(*arguments).code == 0
    assert not leftovers(world)
