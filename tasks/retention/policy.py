"""How much is kept: the section `retention:` of params.yaml, beside `models:`."""

from pathlib import Path

from pydantic import Field

from models.common.params import Section
from tasks.project.params import load_section


class Retention(Section):
    """How much stays of what nothing in production and no person's ref needs."""

    candidates: int = Field(default=10, ge=1)  # newest ones of each model whose bytes stay, whatever the verdict
    reports: int = Field(default=20, ge=1)  # newest ones of each model
    days: int = Field(default=30, ge=1)  # logs, predictions, quarantine reports, left-overs


def load_retention(root: Path) -> Retention:
    """The section of the checkout's params.yaml, or the defaults. UserError where it is wrong."""
    return load_section(root, "retention", Retention)
