"""`settings.json` of a Bento: who answers, and within which limits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    max_waiting: int = 64  # requests in one worker at once; more are refused with status 429

    @property
    def service(self) -> dict[str, Any]:
        """What `@bentoml.service` takes."""
        traffic = {"timeout": self.timeout_s, "max_concurrency": self.max_waiting}
        return {"name": self.model, "traffic": traffic, "threads": self.threads}


def read_settings(folder: Path) -> Settings:
    """The settings that packaging left in a Bento."""
    fields = json.loads((folder / "settings.json").read_text())
    return Settings(**{**fields, "labels": tuple(fields["labels"])})
