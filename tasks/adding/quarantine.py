"""The quarantine report: which files of a source did not come in, and why."""

import csv
from datetime import UTC, datetime
from pathlib import Path


def write_quarantine(folder: Path, slug: str, bad: list[tuple[str, str]]) -> Path:
    """Writes (file, reason) rows as CSV, named after the source and the time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug}-{datetime.now(UTC):%Y%m%dT%H%M%S}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        writer.writerows(bad)
    return path


def bad_share(bad: list[tuple[str, str]], rows: int) -> float:
    """Share of a source's rows that are bad."""
    return len(bad) / rows if rows else 0.0
