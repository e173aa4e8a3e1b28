"""The smoke test that packaging runs on a Bento: requests that a service must answer, and ones it must refuse."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.common.errors import RatchetError

if TYPE_CHECKING:
    import httpx

Differs = Callable[[Mapping[str, Any], Mapping[str, Any], float], str]
TOLERANCE = 1e-4  # of a probability or any other number: evaluation ran in batches, the service one by one


@dataclass(frozen=True)
class ExampleRequest:
    """One test example as a request, and the evaluation's answer to it."""

    form: dict[str, bytes]  # field -> file
    expected: dict[str, Any]  # what the answer must contain


@dataclass(frozen=True)
class SmokeTestResult:
    """How many requests were answered as expected, and the median time of a right answer."""

    requests: int
    latency_ms: float


@dataclass(frozen=True)
class BadRequest:
    """A request that must be refused with `status`."""

    name: str
    status: int
    request: dict[str, Any]  # arguments of httpx.Client.request


def smoke_test(
    url: str, version: str, requests: Sequence[ExampleRequest], max_body_mb: float, differs: Differs
) -> SmokeTestResult:
    """Real examples, requests that must be refused, and real examples again. RatchetError at the first wrong answer.

    `differs`: see models/common/program/service.py.
    """
    import httpx

    field, payload = next(iter(requests[0].form.items()))
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        seconds = [_check_answer(client, request, version, differs) for request in requests]
        rejections = [_check_rejection(client, bad) for bad in bad_requests(field, payload, max_body_mb)]
        repeated = [_check_answer(client, request, version, differs) for request in requests[:2]]
    return SmokeTestResult(len(seconds) + len(rejections) + len(repeated), statistics.median(seconds + repeated) * 1000)


def bad_requests(field: str, payload: bytes, max_body_mb: float) -> list[BadRequest]:
    """One request of each sort that a service meets and must survive."""
    good = {field: ("example", payload)}
    form = {"content-type": "multipart/form-data; boundary=edge"}
    size = int(max_body_mb * 2**20) + 1
    post: dict[str, Any] = {"method": "POST", "url": "/predict"}
    return [
        BadRequest("an empty file", 400, post | {"files": {field: ("empty", b"")}}),
        BadRequest("a file of something else", 400, post | {"files": {field: ("noise.bin", bytes(range(256)) * 4)}}),
        BadRequest("text in a file field", 400, post | {"files": {field: (None, "http://127.0.0.1:9/x.png")}}),
        BadRequest("a missing field", 400, post | {"headers": form, "content": b"--edge--\r\n"}),
        BadRequest("an unknown field", 400, post | {"files": good | {"unknown": ("example", payload)}}),
        BadRequest("a broken form", 400, post | {"headers": form, "content": b"--edge\r\nnonsense"}),
        BadRequest("a JSON body", 415, post | {"json": {field: "example"}}),
        BadRequest("no body", 415, post),
        BadRequest("a large body", 413, post | {"headers": form, "content": bytes(size)}),
        BadRequest("a large body in chunks", 413, post | {"headers": form, "content": _chunks(field, size)}),
        BadRequest("an unknown path", 404, {"method": "GET", "url": "/nowhere"}),
        BadRequest("a wrong method", 405, {"method": "GET", "url": "/predict"}),
    ]


def _chunks(field: str, size: int) -> Iterator[bytes]:
    """A form whose one file goes on for `size` bytes, without a Content-Length."""
    yield f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="large"\r\n\r\n'.encode()
    for _ in range(size // 2**16 + 1):
        yield bytes(2**16)


def _check_answer(client: "httpx.Client", request: ExampleRequest, version: str, differs: Differs) -> float:
    """Sends a test example; seconds that the right answer took."""
    start = time.perf_counter()
    reply = client.post("/predict", files={name: ("example", file) for name, file in request.form.items()})
    seconds = time.perf_counter() - start
    if reply.status_code != 200:
        raise RatchetError(f"The service answers {reply.status_code} to a test example: {reply.text[:300]}")
    answer = reply.json()
    if answer["version"] != version:
        raise RatchetError(f"The service calls itself {answer['version']}; it was packaged as {version}")
    if difference := differs(request.expected, answer, TOLERANCE):
        raise RatchetError(f"The service answers differently from the evaluation: {difference}. Nothing was promoted")
    return seconds


def _check_rejection(client: "httpx.Client", bad: BadRequest) -> BadRequest:
    reply = client.request(**bad.request)
    if reply.status_code != bad.status or set(_json(reply)) != {"error"} or "\n" in _json(reply)["error"]:
        raise RatchetError(
            f"The service must answer {bad.name} with {bad.status} and one line; it answered"
            f" {reply.status_code}: {reply.text[:300]}"
        )
    return bad


def _json(reply: "httpx.Response") -> dict[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
