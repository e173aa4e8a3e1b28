"""Which modules of this project a module imports, directly or through others, by parsing and not by running them."""

import ast
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import models

PACKAGES = ("flows", "tasks", "models")


def source_of(module: str) -> Path | None:
    """The file of a module of this project; None where there is none of that name."""
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    folders = models.__path__ if package == models.__name__ else [str(Path(models.__path__[0]).with_name(package))]
    paths = [Path(folder, *rest) for folder in folders]
    files = (file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, also inside functions; not those for type checkers only.

    `from a import b` gives `a` and `a.b`, as b may be a module.
    """
    return _imports(path.read_bytes(), _package_of(path))


@functools.lru_cache(maxsize=1024)
def _imports(source: bytes, package: str) -> frozenset[str]:
    tree = ast.parse(source)
    type_checking = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    skipped = {inner for node in type_checking for inner in ast.walk(node)}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            modules.update([origin, *(f"{origin}.{alias.name}" for alias in node.names)])
    return frozenset(modules)


def _package_of(path: Path) -> str:
    """The package that a file is in, for its relative imports."""
    folder, names = path.parent, list[str]()
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


def closure(start: Iterable[str]) -> set[str]:
    """Modules of this project that these import, themselves and the packages around them included."""
    return _transitive_imports(start, imports)


def closure_without_packages(start: Iterable[str]) -> set[str]:
    """The same where the packages around modules are empty: what only their `__init__.py` imports is left out."""
    return _transitive_imports(start, lambda path: frozenset() if path.name == "__init__.py" else imports(path))


def _transitive_imports(start: Iterable[str], imports_of: Callable[[Path], frozenset[str]]) -> set[str]:
    pending, modules = list(start), set[str]()
    while pending:
        name = pending.pop()
        path = source_of(name)
        if path and name not in modules:
            modules.add(name)
            pending += [*imports_of(path), name.rpartition(".")[0]]
    return modules


def without_packages(modules: Iterable[str]) -> set[str]:
    """Those that are files and not folders."""
    return {name for name in modules if (path := source_of(name)) and path.name != "__init__.py"}
