"""The report: one self-contained HTML file for a candidate. No network, no script; on screen, in the dark, on paper."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from models.common.data.batches import read_manifest
from models.common.data.class_counts import read_counts
from models.common.kind import Metric, ReportJob
from models.common.program.program import ProgramSpec
from models.common.reporting import svg
from tasks.gating.comparison import PairedScores
from tasks.gating.gate import UNITS, lower_is_better
from tasks.gating.statistics import wilson
from tasks.gating.verdict import Check, Diagnosis, Verdict
from tasks.project.params import Model, load_model

VERDICT_PHRASES = {
    "PROMOTE": "goes into production",
    "HOLD": "stays out for now: not shown to be better",
    "REJECT": "stays out",
    "ERROR": "could not be judged",
}
EN_DASH, TIMES_SIGN = "\u2013", "\u00d7"  # an en dash, a multiplication sign
MAX_CLASS_ROWS = 60  # classes and slices in the table; of more, the ones that changed most
MINUS = re.compile(r"(?<!\w)-(?=\d)")  # a hyphen that stands for a minus
STATUS_ORDER = {"fail": 0, "undecided": 1, "pass": 2, "info": 3}


@dataclass(frozen=True)
class Row:
    """One line of a table of numbers, as text; `direction` is better, worse or nothing, and colours the change."""

    name: str
    candidate: str
    champion: str
    change: str = ""
    direction: str = ""
    interval: str = ""
    examples: str = ""
    status: str = ""


def write_report(
    root: Path, model: str, verdict: Verdict, champion_folder: Path | None, lineage: Mapping[str, Any]
) -> Path:
    """Writes artifacts/<model>/report.html from the results of the stages and of the judge.

    lineage: plain values, shown as they are; `candidate`, `batches added since the champion`, `batches removed since
    the champion`, `environment`, `params` and `reproduce` have places of their own.
    """
    params = load_model(root, model)
    folder = root / "artifacts" / model
    candidate = pd.read_parquet(folder / "evaluation/examples.parquet")
    champion = _table(champion_folder)
    job = ReportJob(
        candidate,
        champion,
        ProgramSpec.load(folder / "program").labels,
        read_manifest(root / "data" / model),
        root / "data" / model,
    )
    content = _content(params, folder, verdict, job, lineage)
    out = folder / "report.html"
    out.write_text(_template().render(content), encoding="utf-8")
    return out


def _content(
    params: Model, folder: Path, verdict: Verdict, job: ReportJob, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    verdict_file = _json(folder / "verdict.json") or {}
    return {
        "model": params.name,
        "kind": params.kind_name.replace("_", " "),
        "verdict": verdict,
        "word": VERDICT_PHRASES[verdict.outcome],
        "reasons": _reasons(verdict),
        "champion": verdict_file.get("champion_version"),
        "examples": len(job.candidate),
        "hero": _primary_gain(verdict),
        "numbers": _key_numbers(params, verdict_file.get("metrics") or {}, job),
        "checks": [check for check in verdict.checks if check.about not in {"class", "slice"}],
        "classes": _classes(params, verdict, job),
        "left_out": max(0, len(_class_checks(verdict)) - MAX_CLASS_ROWS),
        "tolerance": params.gate.slice_tolerance,
        "curves": _curves(folder / "training"),
        "facts": [*_facts(_json(folder / "training/summary.json") or {}), *_train_and_test(verdict)],
        "looks": _looks(verdict.diagnosis),
        "percent": f"{100 * params.gate.confidence:g} %",
        "sections": params.kind.report(job),
        "batches": _batches(job.manifest, lineage),
        "validation": _json(folder / "validation/results.json"),
        "lineage": lineage,
        "origin": {name: value for name, value in lineage.items() if isinstance(value, str) and name != "reproduce"},
        "details": {name: _flat(lineage[name]) for name in ("params", "environment") if lineage.get(name)},
    }


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=loader, autoescape=True, **options)
    environment.filters["minus"] = lambda text: MINUS.sub("\u2212", text)
    return environment.get_template("report.html.j2")


def _table(folder: Path | None) -> pd.DataFrame | None:
    path = folder / "examples.parquet" if folder else None
    return pd.read_parquet(path) if path and path.exists() else None


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _reasons(verdict: Verdict) -> list[tuple[str, str]]:
    """Each reason with the status of the check that it comes from."""
    status: dict[str, str] = {check.message: check.status for check in verdict.checks}
    return [(status.get(reason, "info"), reason) for reason in verdict.reasons]


def _primary_gain(verdict: Verdict) -> dict[str, Any] | None:
    """The primary gain with its interval, drawn large."""
    check = verdict.primary
    if check is None or check.gain is None or not math.isfinite(check.lower or 0):
        return None
    zero = "as the champion" if check.about == "primary" else "as the trivial baseline"
    figure = svg.gain(check.lower, check.gain, check.upper, _axis_limit([check]), check.limit, zero)
    return {"check": check, "figure": figure, "percent": f"{100 * verdict.confidence:g} %"}


def _axis_limit(checks: Sequence[Check]) -> float:
    """The limit of an axis of gains to either side: a round number."""
    values = [abs(value) for check in checks for value in (check.lower, check.gain, check.upper) if value is not None]
    widest = max((value for value in values if value <= 1), default=0.01)
    return next(limit for limit in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if limit >= widest)


# Key numbers


def _key_numbers(params: Model, metrics: Mapping[str, Any], job: ReportJob) -> list[Row]:
    candidate, champion = metrics.get("candidate") or {}, metrics.get("champion") or {}
    intervals = _intervals(params, job)
    rows = []
    for name, value in candidate.items():
        before = champion.get(name)
        shown = {"candidate": _formatted(name, value), "champion": _formatted(name, before)}
        if value is None or before is None:
            rows.append(Row(_title(name), **shown, interval=intervals.get(name, "")))
            continue
        better = (before - value) if lower_is_better(name, params.kind.METRICS) else (value - before)
        direction = "" if abs(better) < 1e-9 or name in UNITS else "better" if better > 0 else "worse"
        change = f"{value / before:.2f} {TIMES_SIGN}" if name in UNITS and before else f"{value - before:+.3f}"
        rows.append(Row(_title(name), **shown, change=change, direction=direction, interval=intervals.get(name, "")))
    return rows


def _title(name: str) -> str:
    return (name.rsplit("_", 1)[0] if name in UNITS else name).replace("_", " ")


def _formatted(name: str, value: float | None) -> str:
    if value is None:
        return EN_DASH
    return f"{value:.3g} {UNITS[name]}" if name in UNITS else f"{value:.3f}"


def _intervals(params: Model, job: ReportJob) -> dict[str, str]:
    """Bounds of the change of each metric that can be resampled; of the value itself for a first model's accuracy."""
    if job.champion is None:
        return {
            metric.name: _value_bounds(job.candidate, metric, params) for metric in params.kind.METRICS if metric.binary
        }
    candidate, champion = (table.sort_values("id").reset_index(drop=True) for table in (job.candidate, job.champion))
    intervals = {}
    for metric in params.kind.METRICS:
        check, _ = PairedScores(metric, params.gate, candidate, champion).check("primary", metric.name)
        bounds = sorted(bound if metric.higher_is_better else -bound for bound in (check.lower or 0, check.upper or 0))
        intervals[metric.name] = f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"
    return intervals


def _value_bounds(table: pd.DataFrame, metric: Metric, params: Model) -> str:
    lower, upper = wilson(float(table[metric.numerator].sum()), len(table), params.gate.confidence)
    return f"{lower:.3f} to {upper:.3f}"


# Classes and slices


def _class_checks(verdict: Verdict) -> list[Check]:
    return [check for check in verdict.checks if check.about in {"class", "slice"}]


def _classes(params: Model, verdict: Verdict, job: ReportJob) -> list[Row]:
    checks = _class_checks(verdict)
    if not checks:
        return _classes_of_first_model(params, job)
    ranked = sorted(checks, key=lambda check: (STATUS_ORDER[check.status], check.gain if check.gain is not None else 9))
    shown = (
        ranked if len(ranked) <= MAX_CLASS_ROWS else ranked[: MAX_CLASS_ROWS * 2 // 3] + ranked[-MAX_CLASS_ROWS // 3 :]
    )
    limit = _axis_limit([check for check in shown if check.examples and check.examples >= 10])
    return [_class_row(check, limit) for check in shown]


def _class_row(check: Check, limit: float) -> Row:
    name, examples = check.name, f"{check.examples:,}"
    if check.gain is None:
        return Row(name, EN_DASH, EN_DASH, examples=examples, status=check.status)
    candidate, champion = f"{check.candidate:.3f}", f"{check.champion:.3f}"
    drawn = svg.interval(check.lower, check.gain, check.upper, limit, check.limit)
    direction = "better" if (check.lower or 0) > 0 else "worse" if (check.upper or 0) < 0 else ""
    return Row(name, candidate, champion, f"{check.gain:+.3f}", direction, drawn, examples, check.status)


def _classes_of_first_model(params: Model, job: ReportJob) -> list[Row]:
    """Without a champion: each class on its own, the weakest first."""
    metric = next((metric for metric in params.kind.METRICS if metric.name == params.gate.metric), None)
    if metric is not None and metric.of_classes and "classes" in job.candidate:
        return _instance_classes_of_first_model(metric.of_classes, job)
    if metric is None or not metric.binary or "label" not in job.candidate:
        return []
    grouped = {str(label): rows for label, rows in job.candidate.groupby("label")}
    weakest = sorted(grouped, key=lambda label: float(grouped[label][metric.numerator].mean()))[:MAX_CLASS_ROWS]
    return [
        Row(
            label,
            f"{grouped[label][metric.numerator].mean():.3f}",
            EN_DASH,
            interval=_value_bounds(grouped[label], metric, params),
            examples=f"{len(grouped[label]):,}",
        )
        for label in weakest
    ]


def _instance_classes_of_first_model(of_classes: Callable[[tuple[str, ...]], Metric], job: ReportJob) -> list[Row]:
    """The same for classes inside examples, each by a metric of its own."""
    values = {label: of_classes((label,)).value(job.candidate) for label in job.labels}
    inside = {label: sum(label in classes for classes in job.candidate["classes"]) for label in job.labels}
    known = sorted((label for label in job.labels if inside[label]), key=lambda label: values[label])
    return [
        Row(label, _formatted("", values[label]), EN_DASH, examples=f"{inside[label]:,}")
        for label in known[:MAX_CLASS_ROWS]
    ]


# Training, data, origin


def _curves(folder: Path) -> list[str]:
    """Loss of training and validation, then each further validation metric, by epoch; the best epoch marked."""
    path = folder / "history.csv"
    if not path.exists():
        return []
    history = pd.read_csv(path)
    best = (_json(folder / "summary.json") or {}).get("best_epoch")
    losses = [("train_loss", "second", "training loss"), ("val_loss", "candidate", "validation")]
    charts = [[_line(history, *each) for each in losses if each[0] in history]]
    others = [name for name in history if str(name).startswith("val_") and name != "val_loss"]
    charts += [[_line(history, str(name), "candidate", str(name).removeprefix("val_"))] for name in others]
    return [svg.line_chart(lines, "epoch", best, "best") for lines in charts if lines]


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts about the training, in readable words and units; keys that a kind adds are shown as they are."""
    known: dict[str, tuple[str, Callable[[Any], str]]] = {
        "epochs_run": (
            "epochs",
            lambda value: f"{value}, stopped early" if summary.get("stopped_early") else f"{value}",
        ),
        "best_epoch": ("best epoch", str),
        "seconds": ("took", lambda value: f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"),
        "seconds_per_step": ("per step", lambda value: f"{1000 * value:,.3g} ms"),
        "peak_memory_mb": ("peak memory", lambda value: f"{value:,.0f} MB"),
        "trainable_parameters": ("of them trained", lambda value: f"{value:,}"),
        "parity_max_abs_diff": ("largest difference between torch and the program", lambda value: f"{value:.1e}"),
    }
    shown = [(name, value) for name, value in summary.items() if name != "stopped_early" and value is not None]
    entries = [(known.get(name, (_title(name), _plain)), value) for name, value in shown]
    return [(title, show(value)) for (title, show), value in entries]


def _train_and_test(verdict: Verdict) -> list[tuple[str, str]]:
    """The policy's metric on training examples beside that on the test."""
    found = verdict.diagnosis
    if found is None or found.train is None or found.test is None:
        return []
    sample = f"{_title(verdict.metric)} on {found.train_examples:,} training examples"
    return [(sample, f"{found.train:.3f}"), ("on test", f"{found.test:.3f}")]


def _looks(found: Diagnosis | None) -> str:
    """What the training looks like, in a sentence."""
    if found is None or found.looks == "not known":
        return ""
    return found.message[:1].upper() + found.message[1:] if found.message else "The training looks sound"


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(history: pd.DataFrame, column: str, style: str, name: str) -> svg.Line:
    points = history[["epoch", column]].dropna()
    return svg.Line(name, list(zip(points["epoch"].astype(float), points[column].astype(float), strict=True)), style)


def _batches(manifest: pd.DataFrame, lineage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each batch with its examples by split, and whether the champion's data had it."""
    added = set(lineage.get("batches added since the champion") or ())
    rows: list[dict[str, Any]] = [
        {
            "name": str(name),
            "since": "new" if name in added else "",
            "classes": _classes_in(part),
            **{split: int((part["split"] == split).sum()) for split in ("train", "val", "test")},
        }
        for name, part in manifest.groupby("batch", sort=True)
    ]
    removed = lineage.get("batches removed since the champion") or ()
    return rows + [{"name": str(name), "since": "removed"} for name in removed]


def _classes_in(rows: pd.DataFrame) -> int:
    """Of labels, or of what is inside targets; 0 where the truth is free text."""
    if "classes" in rows:
        return len({name for text in rows["classes"] for name in read_counts(text)})
    return int(rows["label"].nunique())


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text)."""
    if isinstance(value, Mapping):
        return [
            pair for key, inner in value.items() for pair in _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))]
