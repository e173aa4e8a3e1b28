"""Retraining on schedule: a deployment for every model whose `schedule.cron` is set. Run: python -m flows.schedule."""

from pathlib import Path
from typing import Any

from flows.retrain import retrain
from models.common.errors import RatchetError, UserError
from tasks.project.params import load_model, model_names
from tasks.project.repository import current_branch, disable_analytics, git_remote, is_shared


def schedules(root: Path) -> dict[str, str]:
    """Cron expression of each model that has one. UserError where params.yaml is wrong."""
    crons = {name: load_model(root, name).schedule.cron for name in model_names(root)}
    return {name: cron for name, cron in crons.items() if cron}


def revision(root: Path) -> str:
    """What a scheduled run retrains from: in a shared project what others pushed, else what is committed here."""
    return f"{git_remote(root)}/{current_branch(root)}" if is_shared(root) else "HEAD"


def serve_schedules(root: Path) -> None:
    """Serves the deployments until interrupted; runs of different models may overlap."""
    disable_analytics()
    from prefect import serve
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        raise UserError(
            "Schedules need a Prefect server that stays up. Start one: prefect server start;"
            " then: PREFECT_API_URL=http://127.0.0.1:4200/api ratchet schedule"
        )
    crons = schedules(root)
    if not crons:
        raise UserError("No model has a schedule. Set one in params.yaml: models.NAME.schedule.cron: '0 3 * * *'")
    serve(*deployments(root, crons), limit=len(crons))


def deployments(root: Path, crons: dict[str, str]) -> list[Any]:
    """One deployment per model; a run is never started while the model's last one is still going."""
    return [
        retrain.to_deployment(
            name=model,
            cron=cron,
            parameters={"model": model, "revision": revision(root), "root": str(root)},
            concurrency_limit=1,
            tags=["ratchet"],
        )
        for model, cron in crons.items()
    ]


if __name__ == "__main__":
    try:
        serve_schedules(Path.cwd())
    except RatchetError as error:
        raise SystemExit(f"error: {error}") from None
