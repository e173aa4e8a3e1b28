"""ASGI middleware of every service: the start page, the limit on bodies, refusals as one line of JSON."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from bentoml.exceptions import BentoMLException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.common.program.settings import Settings

PAGE = Path(__file__).with_name("start_page.html")


class RefusedError(BentoMLException):  # type: ignore[misc]  # bentoml is not typed
    """A request that cannot be answered: its status and one line for the one who sent it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message, error_code=status)


class RequestMiddleware:
    """ASGI middleware: the start page, the limit on bodies, and every refusal as one line of JSON."""

    def __init__(self, app: ASGIApp, settings: Settings, fields: Mapping[str, str]) -> None:
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
        size, status, body = 0, HTTPStatus.OK, b""

        async def counting_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        async def rewriting_send(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = HTTPStatus(message["status"])
            if status < HTTPStatus.BAD_REQUEST:
                await send(message)
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    await self._refuse(send, scope, status, body)

        await self._app(scope, counting_receive, rewriting_send)

    async def _refuse(self, send: Send, scope: Scope, status: HTTPStatus, body: bytes) -> None:
        if status == HTTPStatus.NOT_FOUND:
            message = f"no such page: {scope['path'][:80]}. {self._usage}"
        elif status == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{scope['method']} is not allowed on {scope['path'][:80]}. {self._usage}"
        elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            message = self._too_large
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            message = "the service failed on this request; its log says why"
        else:
            message = _error_message(body)
        await _send(send, status, "application/json", json.dumps({"error": message}).encode())


def _error_message(body: bytes) -> str:
    """The message in what BentoML answers: {"error": …}, the same in a list, or plain text."""
    try:
        content = json.loads(body)
    except ValueError:
        return " ".join(body.decode(errors="replace").split())
    while isinstance(content, list) and content:
        content = content[0]
    return " ".join(str(content["error"] if isinstance(content, dict) and "error" in content else content).split())


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


def start_page(settings: Settings, fields: Mapping[str, str]) -> bytes:
    """The page at /: model, version, labels and a form to try it; nothing is loaded from elsewhere."""
    facts = {
        "model": settings.model,
        "version": settings.version,
        "kind": settings.kind.replace("_", " "),
        "labels": settings.labels,
        "fields": dict(fields),
        "limit": f"{settings.max_body_mb:g} MB",
    }
    safe = json.dumps(facts).replace("<", "\\u003c")  # a label must not be able to close the script
    return PAGE.read_text().replace("{{facts}}", safe).encode()
