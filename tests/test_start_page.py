"""The service's start page in a real browser: what is sent, and what is shown of every kind's answer."""

import base64
import io
import json
import shutil
import subprocess
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.common.program.middleware import start_page
from models.common.program.settings import Settings

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here to look at the page with")
GIVE = """<script>(async () => {
  const give = async (input, type) => {
    const files = new DataTransfer()
    files.items.add(new File([await (await fetch("sample/" + input.name)).blob()], "given", { type }))
    input.files = files.files
    input.onchange()
  }
  for (const input of document.querySelectorAll("input")) {
    if (facts.model === input.name || facts.model === "all") await give(input, input.accept.replace("*", "png"))
  }
  ACTION
})()</script>"""
COLOURS = """const look = setInterval(() => { // what is drawn, put where the DOM can be read
    const canvas = document.querySelector("canvas"), pen = canvas?.getContext("2d")
    if (!canvas || canvas.width === 300) return // not drawn yet
    const at = (x, y) => [...pen.getImageData(x, y, 1, 1).data]
    document.title = JSON.stringify([canvas.width, canvas.height, at(4, 10), at(30, 10)])
    clearInterval(look)
  }, 50)"""
RECORD = """const button = document.querySelector(".tools button")
  button.click()
  setTimeout(() => button.click(), 1500)"""


@dataclass
class Service:
    """A service that answers everything with `answer` and keeps the forms that it got: field -> file."""

    answer: dict[str, Any]
    fields: dict[str, str]
    model: str = "all"
    action: str = ""
    forms: list[dict[str, bytes]] = field(default_factory=list)

    def page(self) -> bytes:
        settings = Settings(self.model, "v1.0.0", "some_kind", ("cat", "dog"), 16, 30, 1)
        script = GIVE.replace("ACTION", self.action).encode()
        return start_page(settings, self.fields).replace(b"</body>", script + b"</body>")


@contextmanager
def served(service: Service) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(service.page() if self.path == "/" else picture(), "text/html; charset=utf-8")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
            parts: Any = BytesParser().parsebytes(head + body).get_payload()
            form = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts
            }
            service.forms.append(form)
            self._say(json.dumps(service.answer).encode(), "application/json")

        def _say(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def picture(colour: str = "white", size: tuple[int, int] = (40, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def browser(profile: Path, *options: str) -> list[str]:
    sound = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    headless = ("--headless", "--no-sandbox", "--disable-gpu")
    quiet = ("--disable-background-networking", "--no-proxy-server", f"--user-data-dir={profile}")
    return [str(BROWSER), *headless, *quiet, *sound, *options]


def shown(service: Service, profile: Path) -> str:
    """The page's HTML once it has asked and drawn."""
    with served(service) as url:
        command = browser(profile, "--virtual-time-budget=8000", "--dump-dom", url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.split("<script>(async")[0]


IMAGE, BOTH = {"image": "image/*"}, {"image": "image/*", "audio": "audio/*"}


def test_classes_are_shown_as_bars_of_their_probability(tmp_path: Path) -> None:
    answer = {"label": "dog", "confidence": 0.75, "probabilities": {"dog": 0.75, "cat": 0.25}, "used": ["image"]}
    html = shown(Service(answer, IMAGE), tmp_path)
    assert '<div class="label">dog</div>' in html
    assert "75.0 % sure, from image, answered in" in html
    assert 'style="width: 75%;"' in html


@pytest.mark.parametrize(("model", "sent"), [("image", {"image"}), ("audio", {"audio"}), ("all", {"image", "audio"})])
def test_only_the_fields_that_were_filled_in_are_sent(tmp_path: Path, model: str, sent: set[str]) -> None:
    service = Service({"label": "cat", "confidence": 1, "probabilities": {"cat": 1}}, BOTH, model)
    html = shown(service, tmp_path)
    assert set(service.forms[-1]) == sent
    assert all(file == picture() for file in service.forms[-1].values())
    assert ("<audio controls" in html) == ("audio" in sent)


def test_words_lie_on_a_line_of_time(tmp_path: Path) -> None:
    words = [
        {"word": "one", "start": 0.0, "end": 1.0, "confidence": 1},
        {"word": "<b>", "start": 1.5, "end": 2.0, "confidence": 0.5},
    ]
    html = shown(Service({"text": "one <b>", "confidence": 0.9, "words": words}, {"audio": "audio/*"}), tmp_path)
    assert '<div class="label">one &lt;b&gt;</div>' in html
    assert 'style="left: 75%; width: 25%; opacity: 0.7;"' in html


@pytest.mark.parametrize("polygons", [None, [[2, 5, 12, 5, 12, 18, 2, 18]]])
def test_objects_are_drawn_over_the_picture_in_its_own_pixels(tmp_path: Path, polygons: Any) -> None:
    found = {"label": "dog", "score": 0.875, "box": [4, 5, 12, 18]} | ({"polygons": polygons} if polygons else {})
    html = shown(Service({"objects": [found]}, IMAGE, action=COLOURS), tmp_path)
    assert '<div class="label">1 object</div>' in html
    width, height, inside, outside = title(html)
    assert (width, height, outside) == (40, 20, [0, 0, 0, 0])
    assert inside[3] > 0


def title(html: str) -> Any:
    return json.loads(html.split("<title>")[1].split("</title>", maxsplit=1)[0])


def test_a_mask_is_laid_over_the_picture_with_the_share_of_each_class(tmp_path: Path) -> None:
    mask = Image.new("P", (40, 20), 0)
    mask.paste(1, (20, 0, 40, 20))
    mask.putpalette([255, 0, 0, 0, 0, 255])
    file = io.BytesIO()
    mask.save(file, "PNG")
    answer = {"mask": base64.b64encode(file.getvalue()).decode(), "shares": {"cat": 0.5, "dog": 0.5, "ox": 0.0}}
    answer |= {"colours": {"cat": "#ff0000", "dog": "#0000ff"}, "confidence": 0.8}  # type: ignore[dict-item]
    html = shown(Service(answer, IMAGE, action=COLOURS), tmp_path)
    assert '<div class="label">2 of 2 classes</div>' in html
    assert html.count('class="dot" style="background: rgb(255, 0, 0);"') == 1
    _, _, left, right = title(html)
    assert (left[0], left[2], right[0], right[2]) == (255, 0, 0, 255)
    assert 100 < left[3] < 200  # the photo is seen through it


def test_a_refusal_is_shown_as_its_one_line(tmp_path: Path) -> None:
    html = shown(Service({"error": "not an image"}, IMAGE), tmp_path)
    assert '<div class="error">not an image</div>' in html


def test_what_the_microphone_records_is_sent_as_16_bit_wav(tmp_path: Path) -> None:
    service = Service({"text": "", "words": []}, {"audio": "audio/*"}, "none", RECORD)
    with served(service) as url:
        process = subprocess.Popen(browser(tmp_path, "--remote-debugging-port=0", url), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not service.forms and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        process.wait(20)
    with wave.open(io.BytesIO(service.forms[-1]["audio"])) as recording:
        assert (recording.getsampwidth(), recording.getnchannels()) == (2, 1)
        assert 0.5 < recording.getnframes() / recording.getframerate() < 5
