"""A Prefect deployment for every model of params.yaml, kept as params.yaml says: its clock, its trigger, its place."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from models.common.errors import RatchetError
from tasks.project.params import load_model, model_names
from tasks.project.policy import Schedule
from tasks.project.repository import current_branch, git_remote, is_shared

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "ratchet"
FLOW = "retrain"
NEW_DATA_EVENT = "ratchet.new-data"
TAG = "ratchet"


@dataclass(frozen=True)
class ModelSchedule:
    """What `up` needs to know of a model."""

    schedule: Schedule
    slots: int  # GPUs that its training takes; 1 on a CPU


def read_schedules(root: Path) -> tuple[dict[str, ModelSchedule], list[str]]:
    """Every model whose section is right, and a line for each whose is not. UserError where params.yaml is no YAML."""
    found, problems = {}, []
    for name in model_names(root):
        try:
            model = load_model(root, name)
            found[name] = ModelSchedule(model.schedule, model.train.devices)
        except RatchetError as error:
            problems.append(str(error))
    return found, problems


def revision(root: Path) -> str:
    """What a run that nobody asked for retrains: in a shared project what others pushed, else what is committed."""
    return f"{git_remote(root)}/{current_branch(root)}" if is_shared(root) else "HEAD"


def resource(model: str) -> str:
    """The name of a model in Prefect's events."""
    return f"ratchet.model.{model}"


def apply_deployments(client: "SyncPrefectClient", root: Path, schedules: Mapping[str, ModelSchedule]) -> list[str]:
    """Makes Prefect's deployments those of these models; gives a line for each that Prefect refused.

    The deployment of a model whose section is wrong stays as it was; that of one that has no section any more goes.
    """
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    problems = []
    for name, model in schedules.items():
        try:
            _deployment(root, name, model.schedule).apply()
        except Exception as error:  # Prefect's own and pydantic's: a cron that is none, …
            if isinstance(error.__cause__ or error, httpx.TransportError):  # the server's fault, and not params.yaml's
                raise (error.__cause__ or error) from None
            problems.append(f"params.yaml: models.{name}.schedule: {_first_line(error)}")
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    for known in client.read_deployments(deployment_filter=ours, limit=200):
        if known.name not in model_names(root) and known.work_pool_name == POOL:
            client.delete_resource_owned_automations(f"prefect.deployment.{known.id}")
            client.delete_deployment(known.id)
    return problems


def _deployment(root: Path, name: str, schedule: Schedule) -> Any:
    from prefect.events import DeploymentEventTrigger
    from prefect.flows import Flow

    from flows.retraining.flow import retrain

    flow: Flow[Any, Any] = retrain
    trigger = DeploymentEventTrigger(
        name=f"{name}: new data",
        description="Retrains as soon as data, code or params of the model changed",
        expect={NEW_DATA_EVENT},
        match={"prefect.resource.id": resource(name)},
    )
    return flow.to_deployment(
        name=name,
        cron=schedule.cron,
        parameters={"model": name, "revision": revision(root)},
        triggers=[trigger] if schedule.on_new_data else [],
        tags=[TAG],
        work_pool_name=POOL,
        description=f"Retrains {name}, judges it against production, promotes it if it is really better",
    )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
