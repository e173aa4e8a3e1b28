"""Great Expectations' Data Docs as one HTML file that needs no network.

Its own page loads style sheets, scripts and a logo from five hosts and carries the time of the run. Here its rendering
of each check is kept and put into a page of our own, after a summary in plain words; the same data gives the same page,
so DVC sees that nothing changed.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

TEMPLATE = Path(__file__).with_name("data_docs.html.j2")
RANDOM = re.compile(r"-body-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # ids that change with every rendering


def data_docs(model: str, manifest: pd.DataFrame, checks: Sequence[Any], outcome: Any) -> str:
    """HTML: `checks` (tasks.validate.Check) in words, counts of the data, Great Expectations' tables of `outcome`."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    counts = pd.crosstab(manifest["label"], manifest["split"], margins=True, margins_name="all")
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
        expectations=_rendered(outcome),
    )


def _rendered(outcome: Any) -> str:
    """Great Expectations' own tables, one section a column."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    document = ValidationResultsPageRenderer().render(outcome)
    document.sections = document.sections[1:-1]  # not the overview and the run info: ours is above, theirs has the time
    page = DefaultJinjaPageView().render(document)
    found = re.search(r'(<div id="section-1".*)</div>\s*</div>\s*</div>\s*<footer', page, re.DOTALL)
    return RANDOM.sub("-body", found.group(1)) if found else ""
