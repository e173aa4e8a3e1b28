"""What a conversion does, as eight hex digits: its source, that of our modules it imports, the values it is bound to.

Sources are read from their files, so a changed converter has another digest, without anyone having to think of it.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from pydantic import BaseModel

import models
from models.common.imports import closure_without_packages, imports, source_of

PRIMITIVES = (str, bytes, bool, int, float, complex, type(None), type(...), Path, np.generic)  # a repr says all of them


def conversion_digest(convert: Callable[..., Any], *settings: object) -> str:
    """Of the function, be it a partial, a bound method, a closure or a callable object, and of further settings.

    Raises TypeError where a value that it is bound to cannot be distinguished from another one of its class.
    """
    digest = hashlib.sha256()
    for part in _ValueWalker().parts((convert, *settings)):
        digest.update(hashlib.sha256(part).digest())  # each of one length, so that no two lists of parts look the same
    return digest.hexdigest()[:8]


class _ValueWalker:
    """Walks through a value. Functions may hold themselves in their closures, so each is described once."""

    def __init__(self) -> None:
        self._visited: set[int] = set()

    def parts(self, value: Any) -> Iterator[bytes]:
        """Parts that are the same in another process exactly where the value is."""
        if isinstance(value, PRIMITIVES):
            yield f"{type(value).__name__} {value!r}".encode()
        elif isinstance(value, functools.partial):
            yield from self.parts((value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            yield from self.parts((value.__func__, value.__self__))
        elif isinstance(value, ModuleType):
            yield from _source_parts(value.__name__, getattr(value, "__file__", None))
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, FunctionType) or hasattr(value, "__wrapped__"):
            yield from self._function(value)
        else:
            yield from self._object(value)

    def _function(self, function: Any) -> Iterator[bytes]:
        yield function.__qualname__.encode()
        if id(function) in self._visited:
            return
        self._visited.add(id(function))
        if hasattr(function, "__wrapped__"):  # by functools.wraps or functools.cache
            yield from self.parts(function.__wrapped__)
        if isinstance(function, FunctionType):
            yield from _source_parts(function.__globals__["__name__"], function.__globals__.get("__file__"))
            yield repr(tuple(function.__code__.co_positions())).encode()  # tells the lambdas of one file apart
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            yield from self.parts((function.__defaults__, function.__kwdefaults__, cells))

    def _class(self, cls: type) -> Iterator[bytes]:
        yield f"{cls.__module__}.{cls.__qualname__}".encode()
        if cls.__module__.startswith("models."):
            yield from _source_parts(cls.__module__, source_of(cls.__module__))

    def _object(self, value: Any) -> Iterator[bytes]:
        yield from self._class(type(value))
        if isinstance(value, np.ndarray):
            yield f"{value.dtype} {value.shape}".encode()
            yield value.tobytes()
        elif isinstance(value, Mapping):
            for pair in value.items():
                yield from self.parts(pair)
        elif isinstance(value, set | frozenset):
            yield from sorted(b"".join(self.parts(item)) for item in value)
        elif isinstance(value, list | tuple):
            yield str(len(value)).encode()
            for item in value:
                yield from self.parts(item)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from self.parts((field.name, getattr(value, field.name)))
        elif isinstance(value, BaseModel):
            yield from self.parts(dict(value))
        else:
            yield _checked_repr(value)


def _checked_repr(value: object) -> bytes:
    if " at 0x" in repr(value):
        raise TypeError(
            f"A converter is bound to a {type(value).__qualname__}, whose repr does not say what is in it, so its"
            " results cannot be cached. Bind plain values, arrays, functions or a dataclass of them"
        )
    return repr(value).encode()


def _source_parts(module: str, file: str | Path | None) -> Iterator[bytes]:
    """The source of a module, and of each module of ours that it imports, directly or through others."""
    yield module.encode()  # all there is to say of a module without source
    path = Path(file) if file else None
    if path is None or path.suffix != ".py":
        return
    yield path.read_bytes()
    ours = {name for name in imports(path) if name.split(".")[0] == models.__name__}
    for name in sorted(closure_without_packages(ours)):
        source = source_of(name)
        assert source, name
        yield source.read_bytes()
