"""`mcp-authz webhooks`: who is told elsewhere that a call waits, and whether they hear it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from mcp_authz.cli.invocation import asynchronous, command_line, config_of
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say, table
from mcp_authz.errors import ConfigError, FetchRefused, NotFound
from mcp_authz.ids import new_id
from mcp_authz.installation import utc_now
from mcp_authz.new_file import write_new
from mcp_authz.rules import webhook_message
from mcp_authz.rules.keys import random_bytes
from mcp_authz.rules.webhook_signature import make_secret
from mcp_authz.webhook_settings import make_webhooks
from mcp_authz.webhooks import Webhook, post, verdict_url

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

SECRET = 32  # bytes


@app.callback()
def group() -> None:
    """Webhooks: who is told elsewhere that a call waits."""


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every webhook of the configuration."""
    config = config_of(ctx)
    views = [_view(it, config.public_url) for it in make_webhooks(config)]
    if json:
        print_json(views)
        return
    rows = (
        [it["name"], it["host"], it["template"], it["tells"], ", ".join(it["rules"]) or "all", _answers(it)]
        for it in views
    )
    table(
        ("NAME", "HOST", "TEMPLATE", "TELLS", "RULES", "MAY ANSWER"),
        rows,
        empty="there is no webhook; docs/webhooks.md shows how to add one",
    )


@app.command()
@asynchronous
async def test(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The webhook, as the configuration calls it.")],
    *,
    json: Json = False,
) -> None:
    """Send a test message once, and say how the receiver answers."""
    config = config_of(ctx)
    webhook = next((it for it in make_webhooks(config) if it.name == name), None)
    if webhook is None:
        raise NotFound(f"there is no webhook `{name}`; `mcp-authz webhooks list` has them all")
    message = webhook_message.test(webhook=name, page=f"{config.public_url}/holds", at=utc_now())
    status, trouble = None, None
    try:
        posted = await post(webhook, message, message_id=new_id("msg"), clock=utc_now)
        status = posted.status
        if not posted.is_taken:
            trouble = f"it answers with HTTP {posted.status}"
    except FetchRefused as refused:
        trouble = str(refused)
    if json:
        print_json({"name": name, "host": _host(webhook), "taken": trouble is None, "status": status, "error": trouble})
    elif trouble is None:
        say(f"{_host(webhook)} took the message (HTTP {status})")
    else:
        say(f"{_host(webhook)} did not take the message: {trouble}")
    if trouble is not None:
        raise typer.Exit(1)


@app.command()
def secret(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it goes; it must not be there yet.")],
) -> None:
    """Write a new secret into a file, for `secret_file` or `callback_secret_file`."""
    try:
        write_new(file, make_secret(random_bytes(SECRET)) + "\n")
    except FileExistsError:
        raise ConfigError(f"`{file}` is there already; name another file, or remove it first") from None
    except OSError as error:
        raise ConfigError(f"`{file}` cannot be written: {error.strerror}; name another file") from None
    say(f"{file} has a new secret, for this user's eyes only; the receiver needs what is in it")
    next_step(command_line(ctx, "webhooks", "list"))


def _view(it: Webhook, public_url: str) -> dict[str, Any]:
    return {
        "name": it.name,
        "host": _host(it),
        "template": it.template,
        "tells": it.tells,
        "rules": sorted(it.rules),
        "signed": it.secret is not None,
        "verdict_url": None if it.callback is None else verdict_url(public_url, it),
        "people": dict(it.people),
    }


def _answers(view: dict[str, Any]) -> str:
    if view["verdict_url"] is None:
        return "no"
    return ", ".join(sorted(set(view["people"].values()))) or "whom the rules name"


def _host(it: Webhook) -> str:
    """Where it is; the rest of the address may be a secret."""
    return urlsplit(it.url).netloc
