"""Signed chains for tests of the command line: one of the desk's own gateway, and one of a gateway elsewhere."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_authz.delegating import Delegations
from mcp_authz.installation import Installation, utc_now
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.principals import Chain
from mcp_authz.redeeming import Chains
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, sign_root, write_chain
from mcp_authz.store.ports import Event, Pin
from tests.cli.desk import Cast, Desk
from tests.unasked import Unasked

GATEWAY, PLANNER, CODER, TESTER = (PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 5))
ISSUER = "https://gateway.example"
PROPERTIES = {"repo": {"type": "string"}, "title": {"type": "string"}, "amount": {"type": "integer"}}
DEFINITION = {"name": "open", "inputSchema": {"type": "object", "properties": PROPERTIES}}


def key_file(desk: Desk, name: str, key: PrivateKey) -> Path:
    """A key file as an agent has it."""
    path = desk.path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(key.to_pem())
    path.chmod(0o600)
    return path


def foreign_chain(desk: Desk, **changes: Any) -> Path:
    """What a gateway elsewhere gave to planner."""
    now = utc_now().replace(microsecond=0)
    given: dict[str, Any] = {
        "id": "0199a3c0-0000-7000-8000-000000000001",
        "holder": PLANNER.public,
        "scope": parse_scopes("pr:read pr:write"),
        "tools": None,
        "max_depth": 2,
        "issued_at": now,
        "expires_at": now + timedelta(minutes=30),
    }
    purpose = Purpose(
        subject="user:alice",
        subject_issuer=ISSUER,
        session="s_1",
        purpose="fix 41 \u202e",
        agents=("agent:planner",),
    )
    path = desk.path("planner.chain")
    path.write_text(write_chain([sign_root(Given(**{**given, **changes}), purpose, issuer=ISSUER, key=GATEWAY)]))
    key_file(desk, "planner.pem", PLANNER)
    desk.path("coder.jwk").write_text(json.dumps(CODER.public.jwk))
    desk.path("jwks.json").write_text(json.dumps({"keys": [GATEWAY.public.jwk]}))
    desk.path("tools.json").write_text(json.dumps({"tools": [{**DEFINITION, "name": "acme__open"}]}))
    return path


async def own_chain(desk: Desk, here: Installation, cast: Cast) -> Path:
    """What the desk's own gateway says of planner's link, signed; the tool `acme__open` was seen."""
    pin = Pin(
        server="acme",
        tool="open",
        digest=definition_digest(DEFINITION),
        definition=DEFINITION,
        seen_at=utc_now(),
    )
    await here.store.pin_first([pin], Event(kind="pin", at=utc_now()))
    chains = Chains(
        store=here.store,
        clock=here.clock,
        issuer=here.config.public_url,
        keys=await IssuerKeys.load(here.store, clock=here.clock),
        delegations=Delegations(store=here.store, clock=here.clock, policy=Unasked()),
    )
    (key,) = await here.store.keys_of("agent:planner")
    path = desk.path("planner.chain")
    path.write_text(write_chain(await chains.root(cast.root, cast.session, Chain(links=(cast.root,)), key)))
    key_file(desk, "planner.pem", cast.planner)
    return path
