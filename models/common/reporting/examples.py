"""The examples that a report shows, where their batches are on this machine."""

from html import escape
from typing import Any

import pandas as pd

from models.common.data.batches import read_payloads
from models.common.errors import UserError
from models.common.kind import ReportJob


def shown_payloads(job: ReportJob, rows: pd.DataFrame, things: str, column: str = "bytes") -> list[bytes] | str:
    """The bytes (or targets) of rows of a score table; where they are not here, HTML that says how to fetch them.

    things: what they are, "The 8 pictures".
    """
    try:
        return read_payloads(job.batches, rows, column)
    except (OSError, KeyError, UserError):
        fetch = escape(f"dvc pull data/{job.batches.name}/*.dvc")
        return f"<p>{things} are not on this machine. Fetch them: <code>{fetch}</code></p>"


def file_names(job: ReportJob) -> dict[Any, str]:
    """Id of an example -> the file that it was delivered as."""
    return {key: str(name) for key, name in zip(job.manifest["id"], job.manifest["file_name"], strict=True)}
