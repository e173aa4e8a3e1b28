"""`add` and `remove` in a real git and DVC project: what comes in, where, once; and what is left when it goes wrong."""

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from models.common.data.batches import batch_names, data_version, payloads, read_manifest, read_payloads
from models.common.errors import DataBlockedError, PublishError, UserError
from tasks.add import add
from tasks.project.repository import dvc
from tasks.project.workspace import workspace
from tasks.remove import remove
from tests.conftest import git
from tests.test_repository import clone, share


def photo(path: Path, shade: int, size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.linear_gradient("L").resize((size, size)).rotate(shade * 7)
    image.putpixel((0, 0), shade % 256)
    image.save(path)
    return path


def photos(folder: Path, start: int = 0, each: int = 10) -> Path:
    for number in range(start, start + each):
        photo(folder / "cat" / f"{number}.png", number)
        photo(folder / "dog" / f"{number}.png", number + 100)
    return folder


def set_data(project: Path, **data: object) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["models"]["digits"]["data"] |= data
    path.write_text(yaml.safe_dump(params))


def untouched(project: Path, before: str) -> bool:
    """Nothing left behind: no file in data, no commit, nothing staged, no temporary folder."""
    folder = project / "data/digits"
    left = list(folder.glob("*")) if folder.exists() else []
    temporary = list((project / ".ratchet/adding").glob("*"))
    return (
        not left
        and not temporary
        and git(project, "rev-parse", "HEAD") == before
        and not git(project, "status", "--short")
    )


def test_a_folder_becomes_one_committed_batch_with_its_bytes_as_delivered(project: Path, digits: Path) -> None:
    progress = []
    (project / "mine.txt").write_text("work in progress")
    (project / "staged.txt").write_text("not ours")
    git(project, "add", "staged.txt")
    report = add(project, "digits", digits, progress=lambda done, total: progress.append((done, total)))
    assert (report.rows, report.added, report.duplicates, report.quarantined) == (200, 200, 0, [])
    assert sum(report.classes.values()) == sum(report.splits.values()) == 200
    assert (report.committed, report.pushed) == (True, False)
    assert any("no DVC remote" in note for note in report.notes)
    assert progress[-1] == (200, 200)
    changed = git(project, "show", "--name-only", "--format=", "HEAD").split()
    assert changed == [
        f"data/digits/{name}" for name in (".gitignore", f"{report.batch}.index", f"{report.batch}.parquet.dvc")
    ]
    assert git(project, "status", "--short").split("\n") == ["A  staged.txt", "?? mine.txt"]
    manifest = read_manifest(project / "data/digits")
    stored = list(payloads(project / "data/digits", str(report.batch)))
    assert stored == [(digits / name).read_bytes() for name in manifest["file_name"]]
    assert read_payloads(project / "data/digits", manifest.iloc[[7, 3]]) == [stored[7], stored[3]]
    assert set(manifest["split"]) == {"train", "val", "test"}
    assert (manifest["group"] == manifest["id"]).all()
    assert len(data_version(project / "data/digits")) == 12
    column = pq.ParquetFile(project / f"data/digits/{report.batch}.parquet").metadata.row_group(0)
    assert column.column(column.num_columns - 1).compression == "UNCOMPRESSED"

    again = add(project, "digits", digits)
    assert (again.batch, again.added, again.duplicates, again.committed) == (None, 0, 200, False)


def test_splits_follow_the_content_and_never_move(project: Path, tmp_path: Path) -> None:
    first = add(project, "digits", photos(tmp_path / "a"))
    folder = project / "data/digits"
    before = read_manifest(folder).set_index("id")["split"]
    set_data(project, splits={"val": 0.4, "test": 0.5})  # a change of shares is for new examples
    more = photos(tmp_path / "b", each=14)
    second = add(project, "digits", more, split="test")
    after = read_manifest(folder).set_index("id")["split"]
    assert (second.duplicates, second.added) == (20, 8)
    assert (after[before.index] == before).all()
    assert (after.drop(before.index) == "test").all()
    assert any("never moves" in note for note in second.notes)
    assert batch_names(folder) == sorted([str(first.batch), str(second.batch)])


def test_a_group_stays_in_one_split_across_batches(project: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "a")
    lines = [f"cat/{n}.png,cat,test,scene 1" for n in range(10)] + [f"dog/{n}.png,dog,,scene 2" for n in range(10)]
    (source / "metadata.csv").write_text("file_name,label,split,group\n" + "\n".join(lines))
    add(project, "digits", source)
    later = photos(tmp_path / "b", start=20, each=20)
    lines = [f"cat/{n}.png,cat,,scene 1" for n in range(20, 40)] + ["dog/20.png,dog,train,scene 1"]
    (later / "metadata.csv").write_text("file_name,label,split,group\n" + "\n".join(lines))
    report = add(project, "digits", later)
    assert report.splits == {"train": 0, "val": 0, "test": 20}
    assert report.quarantined == [
        ("dog/20.png", "split 'train' was requested, but its group 'scene 1' is in test; a group is in one split")
    ]
    assert read_manifest(project / "data/digits").groupby("group")["split"].nunique().max() == 1


def test_bad_rows_are_quarantined_with_reasons_and_the_rest_comes_in(project: Path, tmp_path: Path) -> None:
    add(project, "digits", photos(tmp_path / "first"))
    set_data(project, max_bad=0.5, labels=["cat", "dog", "cow"])
    source = photos(tmp_path / "second", start=50)
    shutil.copy(tmp_path / "first/cat/1.png", source / "dog/other.png")  # a cat elsewhere
    shutil.copy(source / "cat/50.png", source / "dog/copy.png")  # both a cat and a dog in here
    shutil.copy(source / "cat/51.png", source / "cat/copy.png")  # only twice
    (source / "cat/cut.png").write_bytes((source / "cat/52.png").read_bytes()[:60])
    (source / "cat/empty.jpg").touch()
    photo(source / "cow/1.png", 210)
    photo(source / "lemur/1.png", 211)
    report = add(project, "digits", source)
    reasons = dict(report.quarantined)
    first = batch_names(project / "data/digits")[0]
    assert reasons["dog/other.png"] == f"the same bytes have the label 'cat' in batch {first}"
    assert reasons["dog/copy.png"] == "the same bytes have the label 'cat' in file cat/50.png"
    assert reasons["cat/50.png"] == "the same bytes have the label 'dog' later in this source"
    assert "lemur" in reasons["lemur/1.png"]
    assert reasons["cat/empty.jpg"] == "empty file (0 bytes)"
    assert set(reasons) == {
        "dog/other.png",
        "dog/copy.png",
        "cat/50.png",
        "cat/cut.png",
        "cat/empty.jpg",
        "lemur/1.png",
    }
    assert (report.rows, report.added, report.duplicates) == (27, 20, 1)
    assert report.classes == {"cat": 9, "cow": 1, "dog": 10}
    assert report.new_labels == ("cow",)
    assert any("Label 'cow' was not seen before" in note for note in report.notes)
    assert any("Only one example so far" in note and "cow" in note for note in report.notes)
    with open(str(report.quarantine_report), newline="") as file:  # noqa: PTH123
        assert list(csv.reader(file))[1:] == [list(row) for row in report.quarantined]
    rows = read_manifest(project / "data/digits").query("batch == @report.batch")
    assert "cat/50.png" not in set(rows["file_name"])
    folder = project / "data/digits"
    assert list(payloads(folder, str(report.batch))) == [(source / name).read_bytes() for name in rows["file_name"]]


def test_a_source_with_too_many_bad_rows_is_refused_and_leaves_nothing(project: Path, tmp_path: Path) -> None:
    before = git(project, "rev-parse", "HEAD")
    source = photos(tmp_path / "a", each=5)
    (source / "cat/bad.png").write_text("no picture")
    with pytest.raises(
        DataBlockedError, match=r"1 of 11 rows are bad \(9.1%, allowed: 5.0%\).*cat/bad.png: not an image"
    ):
        add(project, "digits", source)
    assert untouched(project, before)
    assert next((project / ".ratchet/quarantine/digits").glob("a-*.csv")).read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("model", "split", "message"),
    [("nothing", None, "Unknown model 'nothing'"), ("digits", "tset", "split 'tset' is none of train, val, test")],
)
def test_a_wrong_word_is_refused_with_the_right_ones(
    project: Path, digits: Path, model: str, split: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        add(project, model, digits, split)


def test_a_detached_head_or_no_identity_is_found_before_anything_is_read(
    project: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(project, "checkout", "--quiet", "--detach")
    with pytest.raises(UserError, match="git switch main"):
        add(project, "digits", digits)
    git(project, "switch", "--quiet", "main")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    with pytest.raises(UserError, match=r"git config user\.name"):
        add(project, "digits", digits)
    assert not (project / "data").exists()


def test_one_class_only_is_accepted_and_reported(project: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a/cat/1.png", 1)
    photo(tmp_path / "a/cat/2.png", 2)
    report = add(project, "digits", tmp_path / "a")
    assert report.added == 2
    assert any("One class only so far ('cat')" in note for note in report.notes)


def test_near_duplicates_of_old_and_new_examples_are_counted(project: Path, tmp_path: Path, digits: Path) -> None:
    scene = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50)
    for name, quality in (("a/cat/1.jpg", 95), ("b/cat/1.jpg", 80), ("b/cat/2.jpg", 70)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        scene.save(tmp_path / name, quality=quality)
    photo(tmp_path / "b/cat/3.png", 3)
    assert add(project, "digits", tmp_path / "a").near_duplicates == 0
    assert add(project, "digits", tmp_path / "b").near_duplicates == 2


LIMITED = """
import resource, sys
from pathlib import Path
from tasks.add import add
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    add(Path.cwd(), "digits", Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(project: Path, digits: Path) -> None:
    before = git(project, "rev-parse", "HEAD")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(digits)], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("UserError No space left on the disk"), done.stdout + done.stderr
    assert untouched(project, before)


KILLED = """
import os, signal, sys
from pathlib import Path
from tasks import add
from tasks.project import repository
def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
setattr({module}, "{function}", die)
add.add(Path.cwd(), "digits", Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("module", "function", "recovered"),
    [("add", "content_hash", False), ("repository", "dvc", False), ("repository", "commit", True)],
)
def test_a_killed_add_is_finished_or_cleared_by_the_next(
    project: Path, digits: Path, module: str, function: str, recovered: bool
) -> None:
    code = KILLED.format(module=module, function=function)
    done = subprocess.run([sys.executable, "-c", code, str(digits)], cwd=project, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    report = add(project, "digits", digits)
    assert report.added == (0 if recovered else 200)
    assert any("interrupted" in note for note in report.notes) == recovered
    assert len(batch_names(project / "data/digits")) == 1
    assert len(read_manifest(project / "data/digits")) == 200
    assert not git(project, "status", "--short")
    assert not list((project / ".ratchet/adding").glob("*"))


def test_a_folder_of_the_same_process_id_or_a_stray_file_does_not_block_an_add(project: Path, digits: Path) -> None:
    adding = project / ".ratchet/adding"
    (adding / str(os.getpid())).mkdir(parents=True)  # as a killed one left it; in a container the number comes again
    (adding / "notes.txt").touch()
    assert add(project, "digits", digits).added == 200
    assert [path.name for path in adding.iterdir()] == ["notes.txt"]


def test_adding_to_a_model_does_not_stop_the_retraining_of_another_called_like_its_lock(
    project: Path, digits: Path
) -> None:
    def retrain(done: int, total: int) -> None:
        if done == total:
            with workspace(project, "add-digits", "HEAD") as tree:
                assert tree.exists()

    assert add(project, "digits", digits, progress=retrain).added == 200


def test_an_interrupted_add_takes_back_what_it_had_begun(
    project: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git(project, "rev-parse", "HEAD")

    def interrupted(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.project.repository.commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(project, "digits", digits)
    assert untouched(project, before)


PUSHING = """
import sys
from pathlib import Path
from tasks.add import add
print(add(Path.cwd(), "digits", Path(sys.argv[1])).pushed)
"""


@pytest.mark.parametrize("same", [False, True])
def test_two_clones_that_add_at_once_both_succeed(project: Path, tmp_path: Path, same: bool) -> None:
    origin = share(project, tmp_path)
    other = clone(origin, tmp_path / "other")
    sources = [photos(tmp_path / "a"), tmp_path / "a" if same else photos(tmp_path / "b", start=50)]
    running = [
        subprocess.Popen([sys.executable, "-c", PUSHING, str(source)], cwd=root, stdout=subprocess.PIPE, text=True)
        for root, source in zip((project, other), sources, strict=True)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in running] == ["True", "True"]
    third = clone(origin, tmp_path / "third")
    examples = 20 if same else 40
    assert len(read_manifest(third / "data/digits")) == examples
    folder = third / "data/digits"
    dvc(third, "pull", "--quiet", *map(str, folder.glob("*.dvc")))
    assert sum(1 for name in batch_names(folder) for _ in payloads(folder, name)) == examples


def test_a_refused_push_keeps_the_commit_and_says_how_to_publish(project: Path, tmp_path: Path) -> None:
    origin = share(project, tmp_path)
    hook = origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(
        PublishError, match=r"is added and committed\. Done here but not published: .*To publish: dvc push"
    ):
        add(project, "digits", photos(tmp_path / "a"))
    assert len(read_manifest(project / "data/digits")) == 20
    assert not git(project, "status", "--short")


def test_a_removed_batch_is_gone_and_comes_back_with_a_revert(project: Path, tmp_path: Path) -> None:
    keep = add(project, "digits", photos(tmp_path / "a"))
    wrong = add(project, "digits", photos(tmp_path / "b", start=50))
    report = remove(project, "digits", str(wrong.batch))
    assert (report.rows, report.batches_left) == (20, (keep.batch,))
    assert len(read_manifest(project / "data/digits")) == 20
    assert not git(project, "status", "--short")
    git(project, "revert", "--no-edit", "HEAD")
    assert len(read_manifest(project / "data/digits")) == 40
    with pytest.raises(UserError, match=f"no batch 'x'. Its batches: {keep.batch}, {wrong.batch}"):
        remove(project, "digits", "x")


def test_further_columns_become_slices_and_those_that_ratchet_fills_are_ignored(project: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "a", each=2)
    lines = [f"{kind}/{n}.png,{kind},A,99" for kind in ("cat", "dog") for n in range(2)]
    (source / "metadata.csv").write_text("file_name,label,camera,width\n" + "\n".join(lines))
    report = add(project, "digits", source)
    manifest = read_manifest(project / "data/digits")
    assert set(manifest["camera"]) == {"A"}
    assert set(manifest["width"]) == {16}
    assert any("ignored: width" in note for note in report.notes)
    assert dataclasses.asdict(report)["model"] == "digits"
