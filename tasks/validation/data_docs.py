"""Great Expectations' Data Docs as one HTML file that needs no network.

Its own page loads style sheets, scripts and a logo from five hosts and carries the time of the run. Here its rendering
of each check is put into a page of our own, after a summary in plain words; the same data gives the same page,
so DVC sees that nothing changed.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from models.common.data.class_counts import read_counts
from models.common.kind import Truth

TEMPLATE = Path(__file__).with_name("data_docs.html.j2")
RANDOM_IDS = re.compile(r"-body-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # ids that change with every rendering


def data_docs(model: str, manifest: pd.DataFrame, truth: Truth, checks: Sequence[Any], gx_result: Any) -> str:
    """HTML: `checks` (tasks.validate.Check) in words, counts of the data, Great Expectations' tables of `outcome`."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    counts = _counts(manifest, truth)
    batches = manifest.groupby("batch").size()
    order = sorted(checks, key=lambda check: (check.success, check.severity))
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        model=model,
        checks=order,
        blocked=any(not check.success and check.severity == "block" for check in checks),
        warnings=sum(not check.success and check.severity == "warn" for check in checks),
        splits=list(counts.columns),
        counts=[(label, list(row)) for label, row in zip(counts.index, counts.to_numpy(), strict=True)],
        batches=list(batches.items()),
        expectations=_render_expectations(gx_result),
    )


def _counts(manifest: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Examples by class and split; of targets how many instances of each class; of free text all examples together."""
    if truth == "class":
        return pd.crosstab(manifest["label"], manifest["split"], margins=True, margins_name="all")
    splits = sorted(set(manifest["split"]))
    rows = {"examples": {split: int((manifest["split"] == split).sum()) for split in splits}}
    if truth == "target":
        for split, text in zip(manifest["split"], manifest["classes"], strict=True):
            for name, count in read_counts(text).items():
                row = rows.setdefault(name, dict.fromkeys(splits, 0))
                row[split] += count
    return pd.DataFrame.from_dict(rows, orient="index").assign(all=lambda table: table.sum(axis=1))


def _render_expectations(gx_result: Any) -> str:
    """Great Expectations' own tables, one section a column."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    document = ValidationResultsPageRenderer().render(gx_result)
    document.sections = document.sections[1:-1]  # not the overview and the run info: ours is above, theirs has the time
    page = DefaultJinjaPageView().render(document)
    match = re.search(r'(<div id="section-1".*)</div>\s*</div>\s*</div>\s*<footer', page, re.DOTALL)
    return RANDOM_IDS.sub("-body", match.group(1)) if match else ""
