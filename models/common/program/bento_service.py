"""The Bento's service of any kind, made from what the kind's predictor.py says of it. Travels in every Bento; no torch.

The Bento's own `service.py` is four lines that call `bento_service`.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # before bentoml reads it: a service of ours sends no telemetry

import bentoml
from bentoml import IODescriptor
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from models.common.errors import BadExampleError
from models.common.program.middleware import RefusedError, RequestMiddleware
from models.common.program.service import Files, Service
from models.common.program.settings import Settings, read_settings

TOLERANCE = 1e-3  # of a probability: between the machine that packaged the Bento and the one that serves it
LOG_BYTES = 64 * 2**20  # of one file of the prediction log; four older ones are kept
MAX_LOGGED_TEXT = 2000  # characters of a text in an answer; of a longer one, a mask, the log keeps the length


def bento_service(service: Service, folder: Path) -> Any:
    """The bentoml.Service of a Bento's folder, which holds program/, golden/ and settings.json."""
    settings = read_settings(folder)
    paths = {"predict": service.fields, **service.extra_endpoints}

    def __init__(self: Any) -> None:  # noqa: N807
        predictor = service.predictor(folder / "program", settings.threads)
        log = _prediction_log(settings)
        self.handlers = {path: PredictionHandler(settings, getattr(predictor, path), log) for path in paths}
        self.handlers["predict"].check(folder / "golden", service.differs)

    methods = {path: _endpoint(service, path, fields) for path, fields in paths.items()}
    name = "".join(word.capitalize() for word in settings.kind.split("_"))
    service_class = type(name, (), {"__init__": __init__, "__module__": "service", "__doc__": None, **methods})
    bento = bentoml.service(**settings.service)(service_class)
    bento.add_asgi_middleware(RequestMiddleware, settings=settings, fields=service.fields)
    return bento


def _endpoint(service: Service, path: str, fields: Files) -> Any:
    """`POST /path` with a form of these fields."""

    def answer(self: Any, **form: bytes | None) -> dict[str, Any]:
        files = {name: file for name, file in form.items() if file is not None}
        response: dict[str, Any] = self.handlers[path].answer(**files)
        return response

    answer.__name__ = path
    answer.__doc__ = getattr(service.predictor, path).__doc__
    kind = Path | None if service.fields_optional else Path
    content: dict[str, Any] = {"__annotations__": dict.fromkeys(fields, kind), "__module__": __name__}
    if service.fields_optional:
        content |= dict.fromkeys(fields)
    return bentoml.api(input_spec=type("Form", (Upload,), content))(answer)


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
    present = [name for name in names if required[name] or name in form]
    if not present:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form is empty; it needs at least one of: {', '.join(names)}")
    return {name: await _file(name, form.getlist(name)) for name in present}


async def _file(name: str, values: list[UploadFile | str]) -> bytes:
    if len(values) != 1:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"field '{name}' must be there once; it is there {len(values)} times"
        )
    value = values[0]
    if isinstance(value, str):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"field '{name}' is text, not a file. With curl: -F {name}=@FILE")
    return await value.read()


class PredictionHandler:
    """A predictor's answers, signed with model and version, logged, and refused in one line where an input is bad."""

    def __init__(
        self, settings: Settings, predict: Callable[..., dict[str, Any]], log: logging.Logger | None = None
    ) -> None:
        self._predict, self._log = predict, log
        self._signature = {"model": settings.model, "version": settings.version}

    def answer(self, **form: bytes) -> dict[str, Any]:
        """The answer to one request: field of the form -> file; a field that may be left out and was is not there."""
        start = time.perf_counter()
        try:
            answer = self._predict(**form) | self._signature
        except BadExampleError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if self._log:
            elapsed_ms = round((time.perf_counter() - start) * 1000, 3)
            entry = {"time": time.time(), "bytes": sum(map(len, form.values())), "ms": elapsed_ms, **answer}
            self._log.info(json.dumps({name: _shortened(value) for name, value in entry.items()}))
        return answer

    def check(self, golden: Path, differs: Callable[[Any, Any, float], str]) -> None:
        """Answers the examples that travel in the Bento; a machine that computes something else must not serve.

        Also warms the program up. Raises RuntimeError naming the first example that differs.
        """
        for example in json.loads((golden / "answers.json").read_text()):
            form = {name: (golden / file).read_bytes() for name, file in example["form"].items()}
            difference = differs(example["expected"], self._predict(**form), TOLERANCE)
            if difference:
                raise RuntimeError(
                    f"golden example {', '.join(example['form'].values())}: this machine says {difference}"
                )


def _shortened(value: Any) -> Any:
    """What the log keeps of a value: of a picture in text only how long it is."""
    return f"({len(value):,} characters)" if isinstance(value, str) and len(value) > MAX_LOGGED_TEXT else value


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
