"""A real Bento served in a process of its own: right answers, requests of every bad sort, and a clean end."""

import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from models.common.errors import UserError
from tasks.package import package
from tasks.packaging.smoke_test import BadRequest, bad_requests
from tasks.serve import free_port, running, serve, unpack
from tests.conftest import CODE, TINY_PARAMS
from tests.digits import write_digits
from tests.linear import write_candidate

FOREGROUND = """
from pathlib import Path
from tasks.serve import serve
serve(Path({bento!r}), Path({home!r}), "localhost", {port})
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("photos"), 0, 240)


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text(TINY_PARAMS + "    serve: {max_body_mb: 1}\n")
    write_candidate(root, "digits", photos, size=8)
    return package(root, "digits", "v1.2.0").bento


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service logs what it predicts."""
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def process(
    bento: Path, predictions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    log = {"RATCHET_PREDICTION_LOG": str(predictions)}
    with running(unpack(bento, folder), "127.0.0.1", port, log=folder / "log", extra=log) as started:
        yield f"http://127.0.0.1:{port}", started


@pytest.fixture(scope="module")
def client(process: tuple[str, subprocess.Popen[bytes]]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process[0], timeout=30, trust_env=False) as client:
        yield client


def ask(client: httpx.Client, payload: bytes) -> httpx.Response:
    return client.post("/predict", files={"image": ("five.png", payload)})


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def enormous() -> bytes:
    """A PNG of 100,000 x 100,000 pixels, by what its header says."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def bad_pictures() -> list[BadRequest]:
    noise = Image.effect_noise((64, 64), 90)
    frames = [noise.rotate(angle) for angle in (90, 180)]
    payloads = {
        "a truncated JPEG": saved(noise, "JPEG")[:400],
        "a truncated PNG": saved(noise, "PNG")[:900],
        "a picture of 100,000 x 100,000 px": enormous(),
        "an animated GIF": saved(noise, "GIF", save_all=True, append_images=frames),
        "a script": b"<?php echo 1; ?>",
    }
    post: dict[str, Any] = {"method": "POST", "url": "/predict"}
    twice = [("image", ("a.png", saved(noise, "PNG"))), ("image", ("b.png", saved(noise, "PNG")))]
    one_by_one = [BadRequest(name, 400, post | {"files": {"image": ("x", it)}}) for name, it in payloads.items()]
    return [*one_by_one, BadRequest("two files in one field", 400, post | {"files": twice})]


BAD = bad_requests("image", saved(Image.new("L", (8, 8)), "PNG"), max_body_mb=1) + bad_pictures()


def test_a_digit_is_read_and_the_answer_is_signed(client: httpx.Client, photos: Path) -> None:
    right = 0
    for path in sorted(photos.glob("*/*.png"))[::8]:
        answer = ask(client, path.read_bytes()).json()
        assert {"label", "confidence", "probabilities", "model", "version"} == set(answer)
        assert (answer["model"], answer["version"]) == ("digits", "v1.2.0")
        assert answer["confidence"] == max(answer["probabilities"].values())
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        right += answer["label"] == path.parent.name
    assert right >= 27  # of 30


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_is_answered(client: httpx.Client, format: str) -> None:
    assert ask(client, saved(Image.effect_noise((40, 30), 90), format)).status_code == 200


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_request_gets_one_line_and_the_next_one_is_answered(
    client: httpx.Client, photos: Path, bad: BadRequest
) -> None:
    reply = client.request(**bad.request)
    assert (reply.status_code, set(reply.json())) == (bad.status, {"error"})
    assert re.fullmatch(r"[^\n]{10,200}", reply.json()["error"])
    assert "Traceback" not in reply.text
    five = next((photos / "five").iterdir()).read_bytes()
    assert ask(client, five).status_code == 200


def test_refusals_say_what_is_wrong(client: httpx.Client) -> None:
    assert ask(client, b"").json()["error"] == "empty file (0 bytes)"
    assert "not an image" in ask(client, b"plain text").json()["error"]
    assert "pixels" in ask(client, enormous()).json()["error"]
    unknown = client.post("/predict", files={"photo": ("a.png", b"x")}).json()["error"]
    assert unknown == "unknown field 'photo'. Known: image"


def test_text_in_the_file_field_is_not_fetched_as_an_address(client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        reply = client.post("/predict", files={"image": (None, address)})
        assert reply.status_code == 400
        with pytest.raises(TimeoutError):
            listener.accept()


def test_many_at_once_get_the_answers_they_would_get_alone(client: httpx.Client, photos: Path) -> None:
    payloads = [path.read_bytes() for path in sorted(photos.glob("*/*.png"))[::6]]
    alone = [ask(client, payload).json() for payload in payloads]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda payload: ask(client, payload).json(), payloads))
    assert together == alone


def test_health_is_reported_in_the_usual_places(client: httpx.Client) -> None:
    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/healthz", "/metrics")] == [200] * 4


def test_the_start_page_names_the_model_and_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert '"version": "v1.2.0"' in page.text
    assert '"seven"' in page.text
    assert not re.search(r"https?://|src=|@import", page.text)


def test_predictions_are_logged_and_pictures_are_not(client: httpx.Client, predictions: Path, photos: Path) -> None:
    payload = next((photos / "five").iterdir()).read_bytes()
    answer = ask(client, payload).json()
    (file,) = (predictions / "digits").glob("v1.2.0-*.jsonl")
    entry = json.loads(file.read_text().splitlines()[-1])
    assert set(entry) - set(answer) == {"time", "bytes", "ms"}
    assert {name: entry[name] for name in answer} == answer
    assert entry["bytes"] == len(payload)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_no_process_of_the_service_has_torch_loaded(process: tuple[str, subprocess.Popen[bytes]]) -> None:
    family = psutil.Process(process[1].pid).children(recursive=True)
    loaded = "".join(Path(f"/proc/{child.pid}/maps").read_text() for child in family)
    assert "onnxruntime" in loaded
    assert "torch" not in loaded


def test_a_bento_is_unpacked_once(bento: Path, tmp_path: Path) -> None:
    first = unpack(bento, tmp_path)
    (first / "mark").touch()
    assert unpack(bento, tmp_path) == first
    assert (first / "mark").exists()
    assert re.fullmatch(r"digits-v1\.2\.0-[0-9a-f]{12}", first.name)
    assert list(tmp_path.iterdir()) == [first]


def test_what_is_not_a_bento_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "digits.bento").write_bytes(b"not an archive")
    with pytest.raises(UserError, match="is not a Bento"):
        serve(tmp_path / "digits.bento", tmp_path, port=free_port())
    with pytest.raises(UserError, match="ratchet retrain letters"):
        serve(tmp_path / "letters.bento", tmp_path, port=free_port())
    assert list((tmp_path / "bentos").iterdir()) == []


def test_a_port_that_is_taken_is_refused_at_once(bento: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"Cannot listen on 127\.0\.0\.1:{port} .*Choose another: --port"):
            serve(bento, tmp_path, port=port)


def test_a_host_that_is_no_address_is_refused(bento: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an IP address"):
        serve(bento, tmp_path, host="my-computer")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_when_serve_ends(bento: Path, tmp_path: Path, ending: signal.Signals) -> None:
    port = free_port()
    script = FOREGROUND.format(bento=str(bento), home=str(tmp_path), port=port)
    with (tmp_path / "out").open("w") as out:
        started = subprocess.Popen([sys.executable, "-u", "-c", script], cwd=CODE, stdout=out, stderr=out)
    wait_for(lambda: "is ready: curl -F image=@FILE" in (tmp_path / "out").read_text())
    family = psutil.Process(started.pid).children(recursive=True)
    assert len(family) >= 3
    os.kill(started.pid, ending)
    started.wait(20)
    assert psutil.wait_procs(family, 20)[1] == []
    if ending == signal.SIGINT:
        assert started.returncode == 0
        assert "Traceback" not in (tmp_path / "out").read_text()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


TAKEN_ONCE = """
from pathlib import Path as _Path
_mark = _Path({mark!r})
if not _mark.exists():
    _mark.touch()
    raise OSError(98, "Address already in use")
"""


def test_a_service_whose_inner_port_was_taken_by_another_process_is_started_again(bento: Path, tmp_path: Path) -> None:
    folder, mark = unpack(bento, tmp_path / "served"), tmp_path / "mark"
    source = folder / "src/service.py"
    source.write_text(TAKEN_ONCE.format(mark=str(mark)) + source.read_text())
    port = free_port()
    with running(folder, "127.0.0.1", port, log=tmp_path / "log"):
        assert mark.exists()
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success
