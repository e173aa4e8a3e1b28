"""What the command line prints for a person: tables and a few plain lines on standard output."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from flows.up.display import moment

if TYPE_CHECKING:
    from flows.up.remote_control import Activity
    from tasks.add import AddReport
    from tasks.gc import GcReport
    from tasks.overview import JudgedCandidate, ModelStatus
    from tasks.project.trace import Trace
    from tasks.run_outcome import RunOutcome

COLOURS = {"PROMOTED": "green", "PROMOTE": "green", "HELD": "yellow", "HOLD": "yellow", "UNCHANGED": "cyan"}
COLOURS["AWAITING_APPROVAL"] = "magenta"
MAX_QUARANTINED = 10  # quarantined files listed in the terminal; all are in the report

console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def show_outcome(outcome: "RunOutcome") -> None:
    """How a run ended, why, and where to read more."""
    colour = COLOURS.get(outcome.state, "red")
    version = f" as {outcome.version}" if outcome.state == "PROMOTED" else ""
    state = outcome.state.replace("_", " ")
    console.print(f"[bold {colour}]{state}[/] {outcome.model}{version} in {outcome.seconds:.1f} s")
    for reason in outcome.reasons:
        console.print(f"  • {reason}", markup=False, soft_wrap=True)
    if outcome.state != "PROMOTED":
        console.print(f"In production: {outcome.version or 'nothing yet'}")
    if outcome.state == "AWAITING_APPROVAL":
        console.print(f"Approve it: ratchet approve {outcome.model}; or: ratchet decline {outcome.model} --why 'TEXT'")
    if outcome.suspects_batch:
        console.print(f"Is a batch at fault? The report lists them. Take it out: ratchet remove {outcome.model} BATCH")
    for name, path in (("Report", outcome.report), ("Data docs", outcome.data_docs)):
        if path and path.exists():
            console.print(f"{name}: {path}", soft_wrap=True)
    for note in outcome.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)


def show_added(report: "AddReport") -> None:
    """What came in and what did not."""
    if report.batch is None:
        console.print(f"Nothing new for {report.model}: all {report.rows:,} examples are there already or were refused")
    else:
        splits = ", ".join(f"{name} {count:,}" for name, count in report.splits.items() if count)
        console.print(f"[bold green]Added[/] {report.added:,} examples to {report.model} as batch {report.batch}")
        console.print(f"  splits: {splits}")
        if report.classes:
            console.print(f"  classes: {', '.join(f'{name} {count:,}' for name, count in report.classes.items())}")
    console.print(
        f"  of {report.rows:,} rows: {report.duplicates:,} exact duplicates left out,"
        f" {report.near_duplicates:,} near duplicates, {len(report.quarantined):,} quarantined"
    )
    for file, reason in report.quarantined[:MAX_QUARANTINED]:
        console.print(f"  ✗ {file}: {reason}", markup=False)
    if report.quarantine_report:
        console.print(f"Quarantine report: {report.quarantine_report}", soft_wrap=True)
    for note in report.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)


def show_statuses(rows: Sequence["ModelStatus"], activities: Mapping[str, "Activity"]) -> None:
    """One line per model; of what `ratchet up` does, only where it runs."""
    table = _table(
        "model", "production", "metric", "since", ">batches", ">new", ">rows", "served", "last", "now", "next run"
    )
    for row in rows:
        metric = f"{row.metric} {row.value:.4f}" if row.metric and row.value is not None else ""
        production = "[red]unknown[/]" if row.problem else row.version or "nothing yet"
        activity = activities.get(row.model)
        table.add_row(
            row.model,
            production,
            metric,
            _date(row.since)[:10],
            f"{row.batches:,}",
            f"{row.new_batches:,}" if row.new_batches else "",
            f"{row.rows:,}",
            ", ".join(row.served),
            row.last_verdict or "",
            (activity.running if activity else "") or row.waiting,
            moment(activity.next_run) if activity else "",
        )
    console.print(table)
    for row in rows:
        if row.awaiting:
            name, since = row.awaiting["candidate"], _date(row.awaiting["since"])
            console.print(f"{name} awaits approval since {since}: ratchet approve {row.model}", soft_wrap=True)


def show_history(model: str, rows: Sequence["JudgedCandidate"]) -> None:
    """One line per candidate, newest first. Reasons are in the reports and in --json."""
    if not rows:
        console.print(f"{model} has no candidate yet. Make one: ratchet retrain {model}")
        return
    headings = ("when", "verdict", "version", f">{rows[0].metric}", ">gain", "at least … at most", "data")
    table = _table(*headings)
    for row in rows:
        table.add_row(
            _date(row.when),
            f"[{COLOURS.get(row.verdict, 'red')}]{row.verdict}[/]",
            row.version or row.decision or "",
            _number(row.value),
            _signed(row.gain),
            f"{_signed(row.lower)} … {_signed(row.upper)}" if row.gain is not None else "",
            row.data_version[:7],
        )
    console.print(table)
    if gone := sum(row.report is None for row in rows):
        console.print(f"{gone} of {len(rows)} reports are not here: removed by ratchet gc, or made in another clone")


def show_actions(traces: Sequence["Trace"]) -> None:
    """One line for each change of what is in production and each decision, newest first."""
    table = _table("when", "what", "version", "by", "why")
    for trace in traces:
        version = trace.version or trace.trailers.get("Version", "")
        table.add_row(_date(trace.when), trace.action, version, _plain(trace.by), _plain(trace.why or ""))
    console.print()
    console.print(table, soft_wrap=True)


def show_garbage(report: "GcReport") -> None:
    """One line per category and model: how much goes, or went."""
    table = _table("what", "model", ">count", ">MB")
    for row in report.rows:
        table.add_row(row.category, row.model, f"{row.count:,}", f"{row.size / 1e6:,.1f}")
    if report.rows:
        console.print(table)
    verb = "Deleted" if report.deleted else "Would delete"
    hint = "" if report.deleted or not report.rows else ". To do it: ratchet gc --delete"
    console.print(f"{verb} {report.size / 1e6:,.1f} MB{hint}")
    for note in report.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True)
    return table


def _plain(text: str) -> str:
    """Text that a person wrote: square brackets are no markup."""
    return text.replace("[", r"\[")


def _date(timestamp: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(timestamp)) if timestamp else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"
