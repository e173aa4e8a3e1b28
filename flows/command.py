"""What every command of `ratchet` has in common: its arguments, the project it runs in, its answer as JSON."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from models.common.errors import RatchetError

ModelName = Annotated[str, typer.Argument(help="A model: a section in params.yaml.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Answer as JSON on standard output.")]


def project() -> Path:
    """The project that the command was called in. UserError outside of one."""
    from tasks.project.repository import git

    try:
        return Path(git(Path.cwd(), "rev-parse", "--show-toplevel"))
    except RatchetError:
        from tasks.project.paths import main_checkout

        return main_checkout(Path.cwd())  # raises the error that explains it


def print_json(content: dict[str, Any]) -> None:
    """Indented, for a person may read it too."""
    print(json.dumps(content, indent=2, default=str))
