"""Which modules of this project a module imports, directly or through others, by parsing and not by running them."""

import ast
import functools
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import models

ROOT = Path(models.__path__[0]).parent
PACKAGES = ("flows", "tasks", "models")


def source_of(module: str) -> Path | None:
    """The file of a module of this project; None where there is none of that name."""
    path = ROOT.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if module.split(".", maxsplit=1)[0] in PACKAGES and file.is_file()), None)


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, also inside functions; not those for type checkers only.

    `from a import b` gives `a` and `a.b`, as b may be a module.
    """
    tree = ast.parse(path.read_text())
    type_checking = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    skipped = {inner for node in type_checking for inner in ast.walk(node)}
    modules: list[str] = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(modules)


def closure(start: Iterable[str]) -> set[str]:
    """Modules of this project that these import, themselves and the packages around them included."""
    return _transitive_imports(start, imports)


def closure_without_packages(start: Iterable[str]) -> set[str]:
    """The same where the packages around modules are empty: what only their `__init__.py` imports is left out."""
    return _transitive_imports(start, lambda path: () if path.name == "__init__.py" else imports(path))


def _transitive_imports(start: Iterable[str], imports_of: Callable[[Path], tuple[str, ...]]) -> set[str]:
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


def distributions(modules: Iterable[str]) -> set[str]:
    """What must be installed for modules of this project: names as in a requirements file."""
    installed = packages_distributions()
    top_level = {name.split(".")[0] for module in modules if (path := source_of(module)) for name in imports(path)}
    return {installed[top][0] for top in top_level - set(sys.stdlib_module_names) - set(PACKAGES) if top in installed}
