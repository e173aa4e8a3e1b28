"""The one local address that says how `ratchet up` is: GET /health, 200 or 503. POST /look: look for new data now."""

import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from models.common.errors import RatchetError

START_TIMEOUT_S = 60.0
Report = Callable[[], tuple[bool, dict[str, Any]]]  # (whether all is well, what there is to say)


class HealthServer:
    """Answers in a thread of its own, also while the supervisor is busy."""

    def __init__(self, port: int, report: Report, look: Callable[[], None]) -> None:
        async def health(_request: Request) -> JSONResponse:
            well, content = report()
            return JSONResponse(content, 200 if well else 503)

        async def look_now(_request: Request) -> JSONResponse:
            look()
            return JSONResponse({"status": "looking"}, 202)

        routes = [Route("/health", health), Route("/look", look_now, methods=["POST"])]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="health", daemon=True)
        self.url = f"http://127.0.0.1:{port}/health"

    def start(self) -> None:
        """Begins to answer. RatchetError where it cannot."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RatchetError(f"Nothing can listen on {self.url}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends."""
        self._server.should_exit = True
        self._thread.join(5)
