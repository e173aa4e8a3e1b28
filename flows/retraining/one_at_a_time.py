"""One retrain of a model at a time among machines that share a Prefect server, by a lease that a dead holder loses."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from models.common.errors import UserError

LEASE_S = 60.0  # renewed while the holder lives; what is dead holds a slot no longer than this
WAIT_S = 2.0


class BusyError(UserError):
    """The model is being retrained on another machine."""


@contextmanager
def one_at_a_time(model: str) -> Iterator[None]:
    """Holds the model at the server of PREFECT_API_URL. BusyError where another machine holds it.

    On one machine a lock of the kernel does the same, sooner: tasks/project/workspace.py.
    """
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency

    name = f"ratchet-retrain-{model}"
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    with ExitStack() as held:
        try:
            held.enter_context(
                concurrency(
                    name,
                    timeout_seconds=WAIT_S,
                    lease_duration=LEASE_S,
                    strict=True,
                    raise_on_lease_renewal_failure=False,
                )
            )
        except TimeoutError:
            raise BusyError(
                f"{model} is being retrained on another machine that uses this Prefect server. Wait for it, or stop it"
                f" (a run that was killed frees the model within {LEASE_S:.0f} s)"
            ) from None
        yield
