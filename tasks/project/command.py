"""How a stage becomes a command: `python -m tasks.<verb> MODEL`, which is what dvc.yaml runs."""

import sys
from collections.abc import Callable
from pathlib import Path

from models.common.errors import RatchetError, UserError
from tasks.project.disk import report_full_disk


def run(step: Callable[[Path, str], object]) -> None:
    """Calls `step(current directory, MODEL)`; a RatchetError becomes one line on stderr and its own exit code."""
    try:
        with report_full_disk("running a stage"):
            step(Path.cwd(), _model())
    except RatchetError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell expects of a command that Ctrl-C ended


def _model() -> str:
    if len(sys.argv) != 2:
        raise UserError(f"{Path(sys.argv[0]).stem} takes one model: python -m tasks.{Path(sys.argv[0]).stem} MODEL")
    return sys.argv[1]
