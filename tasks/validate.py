"""Stage `validate`: Great Expectations over the manifest of all batches. `python -m tasks.validate MODEL`

A failed check of severity `block` fails the stage; `warn` is printed. Results and Data Docs are the stage's output, and
also kept in `.ratchet/validation/<model>/`, since a failed stage's output may go with its worktree.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from models.common.data.batches import COMMON_COLUMNS, data_version, read_manifest
from models.common.errors import DataBlockedError
from models.common.kind import Expectation, Truth
from tasks.project import command, paths
from tasks.project.params import Model, load_model
from tasks.validation.checks import common_expectations, schema_expectation
from tasks.validation.data_docs import data_docs

PASSED = "passed.json"  # all that training depends on: another look of the Data Docs trains nothing anew
MAX_EXAMPLES = 10  # rows that a failed check names
SEVERITIES = {"block": "critical", "warn": "warning"}  # Great Expectations' names


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    name: str
    severity: str
    success: bool
    remedy: str
    observed: str
    unexpected_count: int
    examples: tuple[str, ...]  # rows it failed on: "<batch>: <file>, <label>, <split>"


def validate(root: Path, model: str) -> list[CheckResult]:
    """Checks all of a model's data; writes artifacts/<model>/validation. DataBlockedError where it must not be used."""
    params = load_model(root, model)
    manifest = read_manifest(root / "data" / model)
    expectations = _expectations(params, manifest)
    gx_result = _run_great_expectations(model, manifest, expectations)
    checks = [
        _check_result(expectation, result, manifest)
        for expectation, result in zip(expectations, gx_result.results, strict=True)
    ]
    out = root / "artifacts" / model / "validation"
    _write(out, model, manifest, params.kind.TRUTH, checks, gx_result)
    copy = paths.home(root) / "validation" / model
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(out, copy)
    _report(model, checks, copy / "data_docs" / "index.html")
    passed = {"data_version": data_version(root / "data" / model)}
    (out / PASSED).write_text(json.dumps(passed) + "\n")
    return checks


def _expectations(params: Model, manifest: pd.DataFrame) -> list[Expectation]:
    """All checks, or that of the columns alone where one is missing: the others could not be computed."""
    kind_columns = [*params.kind.COLUMNS, *(["target_id"] if params.kind.TRUTH == "target" else [])]
    schema = schema_expectation(kind_columns)
    if not set(COMMON_COLUMNS) | set(kind_columns) <= set(manifest):
        return [schema]
    common = common_expectations(params.data, params.kind.TRUTH, manifest)
    return [schema, *common, *params.kind.expectations(params.data, manifest)]


def _run_great_expectations(model: str, manifest: pd.DataFrame, expectations: Sequence[Expectation]) -> Any:
    """Great Expectations' result of the suite, sorted back into the order of `expectations`."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("batches").add_dataframe_asset(model)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": manifest})
    suite = gx.ExpectationSuite(name=model)
    for index, expectation in enumerate(expectations):
        expectation_class = getattr(gx.expectations, expectation.expectation)
        suite.add_expectation(
            expectation_class(
                **expectation.kwargs,
                severity=SEVERITIES[expectation.severity],
                meta={"name": expectation.name, "index": index},
            )
        )
    gx_result = batch.validate(suite, result_format={"result_format": "COMPLETE"})
    gx_result.results.sort(key=lambda result: result.expectation_config.meta["index"])
    return gx_result


def _check_result(expectation: Expectation, gx_result: Any, manifest: pd.DataFrame) -> CheckResult:
    result: dict[str, Any] = gx_result.result
    rows = manifest.iloc[result.get("unexpected_index_list") or []]
    return CheckResult(
        name=expectation.name,
        severity=expectation.severity,
        success=bool(gx_result.success),
        remedy=expectation.remedy,
        observed=_observed(expectation, gx_result, manifest),
        unexpected_count=int(result.get("unexpected_count") or 0),
        examples=tuple(
            ", ".join([f"{row.batch}: {row.file_name}", *([str(row.label)[:40]] if row.label else []), str(row.split)])
            for row in rows.head(MAX_EXAMPLES).itertuples()
        ),
    )


def _observed(expectation: Expectation, gx_result: Any, manifest: pd.DataFrame) -> str:
    result: dict[str, Any] = gx_result.result
    if "unexpected_count" in result:
        values = dict.fromkeys(map(_short, result.get("partial_unexpected_list", [])[:5]))
        listed = f" ({', '.join(values)})" if values and "True" not in values else ""
        return f"{result['unexpected_count']} of {len(manifest)} rows{listed}"
    if result.get("observed_value") is not None:
        return _short(result["observed_value"])
    column = expectation.kwargs.get("column")
    if column in manifest:
        return ", ".join(map(str, sorted(manifest[column].unique())))
    return str(gx_result.exception_info or "could not be computed")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)[:40]


def _write(
    out: Path, model: str, manifest: pd.DataFrame, truth: Truth, checks: list[CheckResult], gx_result: Any
) -> None:
    (out / "data_docs").mkdir(parents=True, exist_ok=True)
    results = json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False)
    (out / "results.json").write_text(results + "\n", encoding="utf-8")
    (out / "data_docs" / "index.html").write_text(
        data_docs(model, manifest, truth, checks, gx_result), encoding="utf-8"
    )


def _report(model: str, checks: list[CheckResult], page: Path) -> None:
    """Prints what failed; DataBlockedError where a failed check blocks."""
    failed = [check for check in checks if not check.success]
    for check in failed:
        print(f"{check.severity}: {check.name}: {check.observed}; {check.remedy}")
    blocking = [check for check in failed if check.severity == "block"]
    if blocking:
        first = blocking[0]
        more = f" and {len(blocking) - 1} more" if len(blocking) > 1 else ""
        raise DataBlockedError(
            f"{model}'s data is blocked by '{first.name}'{more}: {first.observed}; {first.remedy}."
            f" First: {first.examples[0] if first.examples else 'the data as a whole'}. Data Docs: {page}"
        )
    print(f"{model}: {len(checks)} checks, {len(failed)} warnings. Data Docs: {page}")


if __name__ == "__main__":
    command.run(validate)
