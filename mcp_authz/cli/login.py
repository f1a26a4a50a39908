"""`mcp-authz login`: a person signs in at a gateway, so that their own programs act for them by what they agree to."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from mcp_authz.cli.invocation import advising, asynchronous
from mcp_authz.cli.kept_login import person_auth
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import facts, local, next_step, print_json, say
from mcp_authz.client.door import NoAnswer
from mcp_authz.client.loopback import browser
from mcp_authz.client.signed_in import SignedIn
from mcp_authz.errors import NotFound

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_URL = Annotated[str, typer.Argument(metavar="URL", help="The gateway.")]


@app.command()
@asynchronous
async def login(
    url: _URL,
    *,
    scope: Annotated[
        str | None,
        typer.Option(metavar="SCOPES", help="What to agree to. Else you choose on the page from all there is."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address to open.")] = False,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="The port here that the browser comes back to. Else a free one."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Say who is signed in, and sign nobody in.")] = False,
    json: Json = False,
) -> None:
    """Sign in at a gateway in your browser, and let your own programs act for you by what you agree to there."""
    auth = person_auth(url, scope=scope, show=_printed if no_browser else browser, port=port or 0)
    before = auth.signed_in
    if show:
        if before is None:
            raise NotFound(f"nobody is signed in at {auth.url}; `mcp-authz login {url}` signs you in")
        found = before
    else:
        with advising(NoAnswer, "look whether its URL is the right one and it runs"):
            found = await auth.sign_in()
        if before is not None:  # each time a person agrees is a grant of its own
            await auth.give_back(before)
    if json:
        print_json(_told(found))
        return
    _say(found)
    next_step(f"mcp-authz connect {url}")


def _printed(url: str) -> None:
    sys.stderr.write(f"To sign in, open in a browser on this machine:\n\n  {url}\n\n")
    sys.stderr.flush()


def _say(found: SignedIn) -> None:
    told = _told(found)
    until = told["until"]
    say(f"signed in at {found.url}")
    facts(
        [
            ("person", told["person"] or "unknown"),
            ("agent", told["agent"] or "unknown"),
            ("until", local(datetime.fromisoformat(until)) if until else "it is revoked"),
            ("scopes", " ".join(told["scopes"])),
        ]
    )


def _told(found: SignedIn) -> dict[str, Any]:
    subject = found.more.get("subject")
    return {
        "url": found.url,
        "person": None if subject is None else subject.removeprefix("user:"),
        "agent": found.more.get("agent"),
        "session": found.more.get("session"),
        "until": found.more.get("granted_until"),
        "scopes": sorted(found.scope),
    }
