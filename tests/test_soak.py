"""benchmarks/soak.py in short: a few days of `ratchet up`, with kills."""

from pathlib import Path

import pytest

from benchmarks.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_few_days_end_with_the_right_models_in_production_and_nothing_stuck(tmp_path: Path) -> None:
    page, problems = soak(tmp_path, ("written", "scenes"), days=6, seed=3)
    assert problems == []
    assert "| runs that are stuck; worktrees that are left | 0; 0 |" in page
