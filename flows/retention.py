"""Prefect's own rows: its server deletes them by itself when it is started with these variables."""

from pathlib import Path

from tasks.retention.policy import load_retention

DAY = 86_400  # s


def server_environment(root: Path) -> dict[str, str]:
    """Variables for `prefect server start`: after `retention.days` it forgets a finished flow run, with its task runs,
    logs and artifacts, and its events. Without them it keeps flow runs for ever."""
    days = load_retention(root).days
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(days * DAY),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{days}D",  # this one takes no seconds
    }
