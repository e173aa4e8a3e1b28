"""`ratchet notify …`: who is told what happens."""

import sys
from typing import Annotated

import typer

from flows.command import Json, print_json, project
from models.common.errors import RatchetError, UserError

app = typer.Typer(
    help="Who is told what happens: by mail, Slack, Teams, a webhook, or whatever else Apprise reaches.",
    no_args_is_help=True,
)
HINT = "mailto://user:password@example.org?to=ops@example.org, slack://TOKENS/#ops, jsons://example.org/hook"
Name = Annotated[str, typer.Argument(help="What the channel is called here, as in `ops`.", show_default=False)]


@app.command()
def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="An Apprise URL; - reads it from standard input.", show_default=False)],
    only: Annotated[str, typer.Option(help="Events to tell, as in PROMOTED,ERROR.", show_default="all of them")] = "",
    as_json: Json = False,
) -> None:
    """Add a channel, or replace the one of that name. Kept in .ratchet/notify.json, which git does not see."""
    from flows.retraining.notify import is_url
    from tasks.channels import add_channel, check_channel

    root = project()
    events = [event.strip().upper() for event in only.split(",") if event.strip()]
    check_channel(name, events)
    if not is_url(address := sys.stdin.readline().strip() if url == "-" else url):
        raise UserError(f"That is no URL that Apprise knows. Examples: {HINT}")
    channel = add_channel(root, name, address, events)
    if as_json:
        print_json({"name": name, "url": channel.masked_url, "only": channel.only})
    else:
        told = ", ".join(channel.only) or "everything"
        print(f"{name} ({channel.masked_url}) is told {told}. Try it: ratchet notify test")


@app.command("list")
def list_channels(as_json: Json = False) -> None:
    """Every channel, without its secrets; those of the variable RATCHET_NOTIFY, too."""
    from tasks.channels import channels

    found = channels(project())
    if as_json:
        rows = [{"name": each.name, "url": each.masked_url, "only": each.only} for each in found]
        print_json({"channels": rows})
        return
    for each in found:
        print(f"{each.name}  {each.masked_url}  {', '.join(each.only) or 'everything'}")
    if not found:
        print("Nobody is told anything. Add a channel: ratchet notify add NAME URL")


@app.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Take a channel out."""
    from tasks.channels import remove_channel

    remove_channel(project(), name)
    if as_json:
        print_json({"removed": name})
    else:
        print(f"{name} is told nothing any more")


@app.command("test")
def send_test(as_json: Json = False) -> None:
    """Send a message to every channel now, and say which could not be reached."""
    from flows.retraining.notify import send
    from tasks.channels import channels

    root = project()
    found = channels(root)
    if not found:
        raise UserError("Nobody is told anything yet. Add a channel: ratchet notify add NAME URL")
    subject, body = "Ratchet: a test", f"Messages of the project {root} reach you here."
    problems = {each.name: send(each, subject, body) for each in found}
    if as_json:
        print_json({"sent": {name: problem is None for name, problem in problems.items()}})
    else:
        for name, problem in problems.items():
            print(f"{name}: {problem or 'sent'}")
    if failed := [f"{name} ({problem})" for name, problem in problems.items() if problem]:
        raise RatchetError(f"Not reached: {', '.join(failed)}. Correct it: ratchet notify add NAME URL")
