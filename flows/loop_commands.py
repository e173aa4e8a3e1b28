"""`ratchet up` and `ratchet down`: the commands of the loop that runs by itself."""

from typing import Annotated

import typer

from flows.command import project


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Go to the background once it is ready.")] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time.", show_default="the number of GPUs, else 1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of Prefect's pages.", show_default="4200, or a free one")] = None,
    look_every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks at the remote.")] = 60.0,
) -> None:
    """Keep every model fresh, until Ctrl-C: retrained by the clock and on new data, promoted when really better.

    One process with all that takes: Prefect's server and its pages (or the server at PREFECT_API_URL), a deployment
    for every model in params.yaml, whose changes it takes over, and what runs them, one run of a model at a time.
    """
    from flows.up.control import detach as start_detached
    from flows.up.control import up as keep_running

    ports = {"pages": port} if port else {}
    if detach:
        arguments = [f"--look-every={look_every}", *([f"--slots={slots}"] if slots else [])]
        place = start_detached(project(), [*arguments, *([f"--port={port}"] if port else [])])
        print(f"Running (process {place.process_id}). Prefect's pages: {place.pages}   health: {place.health}")
        print("What it says: .ratchet/logs/up.log   Stop it: ratchet down")
    else:
        keep_running(project(), look_every, slots, ports)


def down() -> None:
    """End this project's `ratchet up`. A run that is going is started again by the next one."""
    from flows.up.control import down as end

    print(end(project()))


def schedule() -> None:
    """The earlier name of `ratchet up`."""
    from flows.up.control import up as keep_running

    keep_running(project())
