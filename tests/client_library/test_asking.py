"""What is asked at a token endpoint, and which answers count; the answers are written here, no server is needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from mcp_authz.client import AgentIdentity, NoAnswer, SignInRefused
from mcp_authz.client.asking import Applicant, own_session, redeemed
from mcp_authz.client.door import Door
from mcp_authz.client.granted import Granted
from mcp_authz.client.talk import Ask, Talk
from mcp_authz.rules import dpop, jose
from tests.client_library.chains import root

NOW = datetime(2026, 7, 28, 12, tzinfo=UTC)
CODER = AgentIdentity.generate("coder")
DOOR = Door(issuer="https://authz.example.com", token_endpoint="https://authz.example.com/token")
URL = "https://authz.example.com/mcp"
WHO = Applicant(name="coder", key=CODER.key, door=DOOR, resource=URL, clock=lambda: NOW)
TOKEN = {"access_token": "t", "token_type": "DPoP", "expires_in": 600, "scope": "a b", "link": "l_1"}


def answer(status: int, body: Any, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def told(talk: Talk[Granted], *answers: httpx2.Response) -> tuple[Granted, list[Ask]]:
    """What the talk comes to when it hears these answers, and what it asked."""
    asked = [next(talk)]
    try:
        for one in answers:
            asked.append(talk.send(one))
    except StopIteration as done:
        return done.value, asked
    raise AssertionError("it asks on")


def assertion(ask: Ask) -> jose.UnverifiedJws:
    assert ask.form is not None
    return jose.read(ask.form["client_assertion"])


def test_a_sign_in_is_signed_and_bound_by_the_agents_key() -> None:
    granted, (ask,) = told(own_session(WHO, {"session": "s_1"}, "a"), answer(200, TOKEN))
    claims = assertion(ask).verify(CODER.public_key, typ=None)
    assert (claims["iss"], claims["sub"], claims["aud"], claims["session"]) == ("coder", "coder", DOOR.issuer, "s_1")
    proof = dpop.read_proof(
        ask.headers["dpop"], method="POST", url=DOOR.token_endpoint, now=NOW, access_token=None, nonces=None
    )
    assert proof.key == CODER.thumbprint
    assert ask.form is not None and ask.form["resource"] == URL
    assert granted.link == "l_1" and granted.scope == {"a", "b"} and (granted.ends_at - NOW).total_seconds() == 600


@pytest.mark.parametrize("kind", ["Bearer", "", None])
def test_a_token_that_is_not_bound_to_the_key_is_not_used(kind: str | None) -> None:
    with pytest.raises(SignInRefused, match="not bound to the agent's key"):
        told(own_session(WHO, {}, None), answer(200, {**TOKEN, "token_type": kind}))


def test_a_nonce_is_taken_up_once_with_everything_signed_anew() -> None:
    wants = answer(400, {"error": "use_dpop_nonce"}, dpop_nonce="n-1")
    _, (first, second) = told(own_session(WHO, {}, None), wants, answer(200, TOKEN))
    assert assertion(first).claims["jti"] != assertion(second).claims["jti"]
    assert jose.read(second.headers["dpop"], allow_jwk=True).claims["nonce"] == "n-1"
    with pytest.raises(SignInRefused, match="use_dpop_nonce"):
        told(own_session(WHO, {}, None), wants, wants)


@pytest.mark.parametrize(
    "strange",
    [
        answer(503, {"error": "temporarily_unavailable"}),
        answer(307, {}, location="https://elsewhere.example"),
        answer(200, ["no", "object"]),
        httpx2.Response(200, text="<html>"),
    ],
)
def test_what_is_no_token_endpoint_is_no_answer(strange: httpx2.Response) -> None:
    with pytest.raises(NoAnswer, match="cannot sign anybody in now"):
        told(own_session(WHO, {}, None), strange)


def test_a_refused_chain_sends_the_agent_to_who_delegated_it() -> None:
    who = replace(WHO, clock=lambda: datetime.now(UTC))
    refused = answer(400, {"error": "access_denied", "error_description": "no"})
    with pytest.raises(SignInRefused, match=r"\(access_denied: no\); ask who delegated it for a new one"):
        told(redeemed(who, root(CODER), None), refused)


def test_nothing_that_is_asked_shows_in_its_representation() -> None:
    ask = next(own_session(WHO, {}, None))
    assert (
        ask.form is not None and ask.form["client_assertion"] not in repr(ask) and ask.headers["dpop"] not in repr(ask)
    )
    granted, _ = told(own_session(WHO, {}, None), answer(200, {**TOKEN, "access_token": "SECRET"}))
    assert "SECRET" not in repr(granted)


def test_a_proof_is_for_the_published_url_however_the_server_is_reached() -> None:
    local = replace(DOOR, token_endpoint="http://localhost/token", published=DOOR.token_endpoint)
    ask = next(own_session(replace(WHO, door=local), {}, None))
    assert ask.url == "http://localhost/token"
    assert jose.read(ask.headers["dpop"], allow_jwk=True).claims["htu"] == DOOR.token_endpoint
