"""A gateway elsewhere, as a command reaches it: by a person's own login, which is made where there is none."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from mcp_authz.cli.kept_login import person_auth
from mcp_authz.client.administering import PATH, Elsewhere, Refused, administering
from mcp_authz.client.discovery import endpoint
from mcp_authz.client.door import SignInRefused
from mcp_authz.client.loopback import browser
from mcp_authz.rules.scope import READ, STOP


@asynccontextmanager
async def elsewhere(url: str, *, stops: bool = False) -> AsyncIterator[Elsewhere]:
    """The gateway can be asked; a browser opens where the person has not let this program do that yet.

    What it answers is read inside: it may be anything.

    Raises:
        Refused: it answers what cannot be read.
        InputError: the URL is none, or one by which a token would travel in the open.
        SignInRefused: somebody has to be asked, and nobody sits here.
    """
    scope = f"{READ} {STOP}" if stops else READ
    auth = person_auth(url, scope=scope, show=partial(_shown, url, scope), beside=PATH)
    async with administering(endpoint(url).removesuffix("/mcp"), auth) as there:
        try:
            yield there
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            raise Refused(f"what {url} answered cannot be read; is it a gateway of this version?") from None


def _shown(gateway: str, scope: str, url: str) -> None:
    if not sys.stdin.isatty() and not sys.stderr.isatty():
        command = shlex.join(["mcp-authz", "login", gateway, "--scope", scope])
        raise SignInRefused(f"you have not let this program do that yet, and nobody sits here to be asked; {command}")
    sys.stderr.write("this gateway takes your leave for this, once, in your browser\n")
    sys.stderr.flush()
    browser(url)
