"""What a passkey signs when its person agrees: all of it, so that nothing of it can be exchanged afterwards."""

from __future__ import annotations

from dataclasses import replace

from mcp_authz.authorization import AuthorizationRequest
from mcp_authz.principals import AgentName, ClientId, PersonName, Thumbprint
from mcp_authz.rules.agreement import Agreement, consent_challenge
from mcp_authz.rules.scope import Scope

NONCE = bytes(range(32))
REQUEST = AuthorizationRequest(
    client=ClientId("https://cursor.example/client.json"),
    redirect_uri="http://127.0.0.1:7777/callback",
    challenge="c" * 43,
    state="s",
)
AGREED = Agreement(
    issuer="http://localhost:8642",
    person=PersonName("alice"),
    client_name="Cursor",
    agent=AgentName("cursor@alice"),
    request=REQUEST,
    chosen=frozenset({Scope("pr:read"), Scope("deploy:*")}),
    days=30,
)


def test_each_thing_that_is_agreed_to_makes_another_challenge() -> None:
    others = [
        replace(AGREED, issuer="http://localhost:8643"),
        replace(AGREED, person=PersonName("bob")),
        replace(AGREED, client_name="Cursors"),
        replace(AGREED, agent=AgentName("cursor-2@alice")),
        replace(AGREED, chosen=frozenset({Scope("pr:read")})),
        replace(AGREED, chosen=frozenset({Scope("pr:read"), Scope("deploy")})),
        replace(AGREED, days=31),
        *(
            replace(AGREED, request=request)
            for request in (
                replace(REQUEST, client=ClientId("https://cursor.example/other.json")),
                replace(REQUEST, redirect_uri="http://127.0.0.1:7778/callback"),
                replace(REQUEST, challenge="d" * 43),
                replace(REQUEST, state=None),
                replace(REQUEST, confirmation=Thumbprint("t" * 43)),
            )
        ),
    ]
    challenges = {consent_challenge(one, NONCE) for one in (AGREED, *others)}
    assert len(challenges) == len(others) + 1
    assert consent_challenge(AGREED, bytes(32)) not in challenges


def test_the_challenge_is_the_same_in_every_version_that_reads_it() -> None:
    assert consent_challenge(AGREED, NONCE).hex() == "ec9472f2c139bdc5bf2d9d8de4a3f962ad0e4d2c696ab0e9969529152dbd539f"
