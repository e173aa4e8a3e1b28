"""What the services of all kinds share: limits, strict forms, error answers, the start page, the log of predictions.

Travels inside every Bento and needs no torch. A kind's `bento_service.py` adds its form and its predictor.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # before bentoml reads it: a service of ours tells nobody

from bentoml import IODescriptor
from bentoml.exceptions import BentoMLException
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.common.errors import BadExampleError

TOLERANCE = 1e-3  # of a probability: between the machine that packaged the Bento and the one that serves it
LOG_BYTES = 64 * 2**20  # of one file of the prediction log; four older ones are kept
LOGGED = 2000  # characters of a text in an answer; of a longer one, a mask, the log keeps the length
PAGE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Settings:
    """`settings.json` of a Bento: who answers, and within which limits."""

    model: str
    version: str
    kind: str
    labels: tuple[str, ...]
    max_body_mb: float  # of a whole request
    timeout_s: float  # for a whole request; then 504
    threads: int  # cores that one worker computes on
    max_waiting: int = 64  # requests in one worker at once; more are told 429 at once

    @property
    def service(self) -> dict[str, Any]:
        """What `@bentoml.service` takes."""
        traffic = {"timeout": self.timeout_s, "max_concurrency": self.max_waiting}
        return {"name": self.model, "traffic": traffic, "threads": self.threads}


def read_settings(folder: Path) -> Settings:
    """The settings that packaging left in a Bento."""
    fields = json.loads((folder / "settings.json").read_text())
    return Settings(**{**fields, "labels": tuple(fields["labels"])})


class RefusedError(BentoMLException):  # type: ignore[misc]  # bentoml is not typed
    """A request that cannot be answered: its status and one line for the one who sent it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message, error_code=status)


class Upload(IODescriptor):  # type: ignore[misc]  # bentoml is not typed
    """A multipart form of files and none beside them; declared as Path, or as Path | None where a file may be left out,
    given as bytes. At least one is needed.

    BentoML's own reading ignores unknown fields and, where a file field holds text, fetches it as a URL.
    """

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> "Upload":  # noqa: ARG003
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            name = next(iter(cls.model_fields))
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"send multipart/form-data with a file in the field '{name}': curl -F {name}=@FILE",
            )
        required = {name: field.is_required() for name, field in cls.model_fields.items()}
        form: Upload = cls.model_construct(**await _files(request, required))
        return form


async def _files(request: Request, required: dict[str, bool]) -> dict[str, bytes]:
    names = list(required)
    try:
        form = await request.form(max_files=len(names) + 1, max_fields=len(names) + 1)
    except HTTPException as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the multipart form cannot be read: {error.detail}") from error
    except ClientDisconnect as error:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, "the connection closed before the whole request was there"
        ) from error
    for name in form:
        if name not in names:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"unknown field '{name[:80]}'. Known: {', '.join(names)}")
    given = [name for name in names if required[name] or name in form]
    if not given:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form is empty; it needs at least one of: {', '.join(names)}")
    return {name: await _file(name, form.getlist(name)) for name in given}


async def _file(name: str, values: list[UploadFile | str]) -> bytes:
    if len(values) != 1:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"field '{name}' must be there once; it is there {len(values)} times"
        )
    value = values[0]
    if isinstance(value, str):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"field '{name}' is text, not a file. With curl: -F {name}=@FILE")
    return await value.read()


class Answers:
    """A predictor's answers, signed with model and version, logged, and refused in one line where an input is bad."""

    def __init__(self, settings: Settings, predict: Callable[..., dict[str, Any]]) -> None:
        self._predict = predict
        self._signature = {"model": settings.model, "version": settings.version}
        self._log = _prediction_log(settings)

    def answer(self, **form: bytes) -> dict[str, Any]:
        """The answer to one request: field of the form -> file; a field that may be left out and was is not there."""
        start = time.perf_counter()
        try:
            answer = self._predict(**form) | self._signature
        except BadExampleError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if self._log:
            took = round((time.perf_counter() - start) * 1000, 3)
            entry = {"time": time.time(), "bytes": sum(map(len, form.values())), "ms": took, **answer}
            self._log.info(json.dumps({name: _brief(value) for name, value in entry.items()}))
        return answer

    def check(self, golden: Path, differs: Callable[[Any, Any, float], str]) -> None:
        """Answers the examples that travel in the Bento; a machine that computes something else must not serve.

        Also warms the program up. Raises RuntimeError naming the first example that differs.
        """
        for example in json.loads((golden / "answers.json").read_text()):
            form = {name: (golden / file).read_bytes() for name, file in example["form"].items()}
            found = differs(example["expected"], self._predict(**form), TOLERANCE)
            if found:
                raise RuntimeError(f"golden example {', '.join(example['form'].values())}: this machine says {found}")


def _brief(value: Any) -> Any:
    """What the log keeps of a value: of a picture in text only how long it is."""
    return f"({len(value):,} characters)" if isinstance(value, str) and len(value) > LOGGED else value


def _prediction_log(settings: Settings) -> logging.Logger | None:
    """One JSON line for each prediction, in $RATCHET_PREDICTION_LOG (a folder); not set, nothing is kept."""
    folder = os.environ.get("RATCHET_PREDICTION_LOG")
    if not folder:
        return None
    path = Path(folder).absolute() / settings.model / f"{settings.version}-{os.getpid()}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(f"ratchet.predictions.{settings.model}")
    log.addHandler(RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=4))
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


class Door:
    """ASGI middleware: the start page, the limit on bodies, and every refusal as one line of JSON."""

    def __init__(self, app: ASGIApp, settings: Settings, fields: dict[str, str]) -> None:
        """`fields`: form field -> the files it accepts, as in HTML."""
        self._app = app
        self._limit = int(settings.max_body_mb * 2**20)
        self._too_large = f"the request is larger than the {settings.max_body_mb:g} MB allowed"
        self._usage = f"POST a form with {', '.join(fields)} to /predict, or open / in a browser"
        self._page = start_page(settings, fields)
        logging.getLogger("bentoml._internal.server.http_app").addFilter(_without_trace)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await _send(send, HTTPStatus.OK, "text/html; charset=utf-8", self._page)
        elif _content_length(scope) > self._limit:
            await self._refuse(send, scope, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"")
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, counting its body, and an answer back, rewriting those that refuse."""
        size, status, said = 0, HTTPStatus.OK, b""

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        async def rewritten(message: Message) -> None:
            nonlocal status, said
            if message["type"] == "http.response.start":
                status = HTTPStatus(message["status"])
            if status < HTTPStatus.BAD_REQUEST:
                await send(message)
            elif message["type"] == "http.response.body":
                said += message.get("body", b"")
                if not message.get("more_body"):
                    await self._refuse(send, scope, status, said)

        await self._app(scope, counted, rewritten)

    async def _refuse(self, send: Send, scope: Scope, status: HTTPStatus, said: bytes) -> None:
        if status == HTTPStatus.NOT_FOUND:
            line = f"no such page: {scope['path'][:80]}. {self._usage}"
        elif status == HTTPStatus.METHOD_NOT_ALLOWED:
            line = f"{scope['method']} is not allowed on {scope['path'][:80]}. {self._usage}"
        elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            line = self._too_large
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            line = "the service failed on this request; its log says why"
        else:
            line = _line(said)
        await _send(send, status, "application/json", json.dumps({"error": line}).encode())


def _line(said: bytes) -> str:
    """The message in what BentoML answers: {"error": …}, the same in a list, or plain text."""
    try:
        found = json.loads(said)
    except ValueError:
        return " ".join(said.decode(errors="replace").split())
    while isinstance(found, list) and found:
        found = found[0]
    return " ".join(str(found["error"] if isinstance(found, dict) and "error" in found else found).split())


def _content_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


async def _send(send: Send, status: HTTPStatus, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _without_trace(record: logging.LogRecord) -> bool:
    """A client's mistake is one line in the service's log; a stack trace is for our own."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RefusedError):
        record.exc_info, record.msg, record.args = None, "Refused: %s", (str(error),)
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def start_page(settings: Settings, fields: dict[str, str]) -> bytes:
    """The page at /: model, version, labels and a form to try it; nothing is loaded from elsewhere."""
    facts = {
        "model": settings.model,
        "version": settings.version,
        "kind": settings.kind.replace("_", " "),
        "labels": settings.labels,
        "fields": fields,
        "limit": f"{settings.max_body_mb:g} MB",
    }
    safe = json.dumps(facts).replace("<", "\\u003c")  # a label must not be able to close the script
    return PAGE.read_text().replace("{{facts}}", safe).encode()
