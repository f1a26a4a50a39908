"""A client that leads people to `/authorize`, and a person who answers there, without a browser's window."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2

from mcp_authz.authorization import ClientKind, RegisteredClient
from mcp_authz.principals import ClientId, Grant
from mcp_authz.rules.keys import b64url
from mcp_authz.store.ports import Event
from tests.web.authenticator import Visit
from tests.world import World

LOOPBACK = "http://127.0.0.1:7777/callback"
VERIFIER = "v" * 43
CHALLENGE = b64url(hashlib.sha256(VERIFIER.encode()).digest())


async def client(
    w: World, name: str = "Cursor", *, kind: ClientKind = "document", to: str = "http://127.0.0.1/callback", **more: Any
) -> RegisteredClient:
    """A client that the store knows; the document of one that has any was read just now."""
    handle, now = "".join(c for c in name.lower().split()[0] if "a" <= c <= "z"), w.clock()
    known = RegisteredClient(
        id=ClientId(f"https://{handle}.example/client.json" if kind == "document" else f"client_{handle}"),
        handle=handle,
        name=name,
        kind=kind,
        redirect_uris=(to,),
        registered_at=now,
        read_at=now,
        **more,
    )
    await w.store.add_client(known, Event(kind="enrolment", at=now, fields={}))
    return known


def asks(by: RegisteredClient, **changes: str | None) -> str:
    """The query of an authorization request; None leaves a parameter out."""
    to = by.redirect_uris[0]
    asked = {
        "response_type": "code",
        "client_id": by.id,
        "redirect_uri": LOOPBACK if to == "http://127.0.0.1/callback" else to,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": "s-1",
        **changes,
    }
    return urlencode({name: value for name, value in asked.items() if value is not None})


async def question(them: Visit, query: str, scopes: list[str], days: int = 30) -> tuple[str, Any]:
    """What their passkey is asked before they agree."""
    return await them.question("/authorize", {"query": query, "scopes": scopes, "days": days})


async def agree(them: Visit, query: str, scopes: list[str], days: int = 30) -> httpx2.Response:
    """They agree with their passkey."""
    nonce, options = await question(them, query, scopes, days)
    return await them.post("/authorize/agree", {"nonce": nonce, "answer": them.passkey.show(options, them.origin)})


def answer(response: httpx2.Response) -> dict[str, str]:
    """What the client is told by the URL that the browser goes to."""
    url = response.json()["next"] if response.status_code == 200 else response.headers["location"]
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


async def grants(w: World) -> list[Grant]:
    """Every grant there is, oldest first."""
    return sorted(await w.store.grants(), key=lambda grant: grant.granted_at)
