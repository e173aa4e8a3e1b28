"""A kind is added by a folder alone: a toy one, kept outside of models/, goes through the whole chain."""

import random
import shutil
from pathlib import Path

import httpx
import pytest
import yaml

from tasks.serve import free_port
from tests.conftest import CODE, git
from tests.world import World

TOY = Path(__file__).parent / "toy" / "text_language"
WORDS = {
    "english": "the of and to in that was his with which have from they were their would there through",
    "german": "der die und das nicht ist mit für werden auch über können müssen schön größer weiß heißt",
    "spanish": "el la que los del las por con una para como más pero año señor niño mañana también está",
}
PARAMS = {
    "models": {
        "letters": {
            "kind": "text_language",
            "data": {},
            "train": {"epochs": 8, "learning_rate": 0.03, "batch_size": 16},
            "gate": {"floors": {"accuracy": 0.8}},
        }
    }
}


def write_texts(folder: Path, each: int) -> Path:
    choose = random.Random(7)
    for language, words in WORDS.items():
        (folder / language).mkdir(parents=True)
        for number in range(each):
            (folder / language / f"{number}.txt").write_text(" ".join(choose.choices(words.split(), k=12)))
    return folder


@pytest.mark.timeout(400)
def test_a_folder_in_models_is_all_that_a_new_kind_needs(project: Path, tmp_path: Path) -> None:
    shutil.copytree(TOY, project / "models" / "text_language")
    (project / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    git(project, "add", "models/text_language", "params.yaml")
    git(project, "commit", "--quiet", "--message=a new kind")
    assert not (CODE / "models" / "text_language").exists()
    world = World(project.parent)
    added = world.ratchet("add", "letters", str(write_texts(tmp_path / "texts", 60)), "--json")
    assert added.json["added"] == 180, added.err
    answer = world.ratchet("retrain", "letters", "--json")
    assert answer.json["state"] == "PROMOTED", answer.out + answer.err
    assert world.ratchet("retrain", "letters", "--json").json["state"] == "UNCHANGED"
    report = (project / "artifacts/letters/runs/latest/report.html").read_text()
    assert "texts were taken for another language" in report

    port = free_port()
    serving = world.start("serve", "letters", "--port", str(port))
    try:
        line = next(line for line in iter(serving.stdout.readline, "") if "is ready" in line)  # type: ignore[union-attr]
        assert f"curl -F text=@FILE http://127.0.0.1:{port}/predict" in line
        reply = httpx.post(
            f"http://127.0.0.1:{port}/predict", files={"text": "schöne größere häuser und weiße wände".encode()}
        )
        assert reply.json()["label"] == "german"
        refused = httpx.post(f"http://127.0.0.1:{port}/predict", files={"text": b"123"})
        assert (refused.status_code, refused.json()) == (
            400,
            {"error": "no text in it; give a text with letters, as UTF-8"},
        )
    finally:
        serving.terminate()
        serving.communicate(timeout=60)
