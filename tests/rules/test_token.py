"""What an access token says, byte by byte, and everything for which it is not believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.principals import AccessToken, AgentName, LinkId, SessionId, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, unb64url
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.token import ACCESS_TOKEN, access_claims, read_access_token

KEY = PrivateKey.from_seed(bytes(range(32)))
KID = KEY.public.thumbprint
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ISSUER, AUDIENCE = "https://gate.example", "https://gate.example/mcp"
CHAIN = (AgentName("planner"), AgentName("coder"))

DELEGATED = AccessToken(
    id="t_1",
    client_id="coder",
    actor=AgentName("coder"),
    key=Thumbprint("print"),
    subject="user:alice",
    session=SessionId("s_1"),
    link=LinkId("l_2"),
    scope=parse_scopes("mcp:connect pr:write"),
    issued_at=NOW,
    expires_at=NOW + timedelta(minutes=10),
)
OWN = replace(DELEGATED, subject="agent:coder", session=None, link=None)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed; a claim given as None is left out."""
    base = {**access_claims(DELEGATED, issuer=ISSUER, audience=AUDIENCE, chain=CHAIN), **changes}
    return {name: value for name, value in base.items() if value is not None}


def read(token: str, now: datetime = NOW) -> AccessToken:
    return read_access_token(token, keys={KID: KEY.public}, issuer=ISSUER, audience=AUDIENCE, now=now)


def signed(said: dict[str, Any], *, typ: str = ACCESS_TOKEN, kid: str | None = KID, key: PrivateKey = KEY) -> str:
    return jose.sign(said, typ=typ, key=key, kid=kid)


def test_a_delegated_token_reads_back_as_it_was_made() -> None:
    assert read(signed(claims())) == DELEGATED


def test_a_token_in_the_agents_own_name_reads_back_as_it_was_made() -> None:
    said = access_claims(OWN, issuer=ISSUER, audience=AUDIENCE)
    assert not said.keys() & {"act", "sid", "lnk"}
    assert read(signed(said)) == OWN


def test_the_current_actor_stands_outermost_and_names_who_delegated_to_it() -> None:
    assert claims()["act"] == {
        "sub": "agent:coder",
        "iss": ISSUER,
        "sub_profile": "ai_agent",
        "act": {"sub": "agent:planner", "iss": ISSUER, "sub_profile": "ai_agent"},
    }


def test_the_bytes_of_a_token_are_pinned() -> None:
    header, payload, _ = signed(claims()).split(".")
    assert unb64url(header).decode() == HEADER
    assert unb64url(payload).decode() == PAYLOAD


HEADER = f'{{"alg":"EdDSA","typ":"at+jwt","kid":"{KID}"}}'
PAYLOAD = (
    '{"act":{"act":{"iss":"https://gate.example","sub":"agent:planner","sub_profile":"ai_agent"},'
    '"iss":"https://gate.example","sub":"agent:coder","sub_profile":"ai_agent"},"akt":"print",'
    '"aud":"https://gate.example/mcp","client_id":"coder","exp":1767323645,"iat":1767323045,'
    '"iss":"https://gate.example","jti":"t_1","lnk":"l_2","scope":"mcp:connect pr:write","sid":"s_1",'
    '"sub":"user:alice"}'
)


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "client_id", "akt", "scope", "iat", "exp", "jti"])
def test_no_required_claim_may_be_missing(name: str) -> None:
    with pytest.raises(SignatureRefused):
        read(signed(claims(**{name: None})))


TEXTS = ("iss", "aud", "sub", "client_id", "akt", "scope", "jti", "sid", "lnk")
NO_TEXT: tuple[Any, ...] = (7, 7.5, True, [], {}, "")
NO_TIME: tuple[Any, ...] = ("1767323045", True, [], {}, -1)
WRONG = [(name, value) for name in TEXTS for value in NO_TEXT]
WRONG += [(name, value) for name in ("iat", "exp") for value in NO_TIME]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_no_claim_may_be_empty_or_of_another_type(name: str, value: Any) -> None:
    with pytest.raises(SignatureRefused):
        read(signed(claims(**{name: value})))


@pytest.mark.parametrize(
    "audience", [f"{AUDIENCE}/", AUDIENCE.upper(), [AUDIENCE], [AUDIENCE, "https://other.example"], ISSUER]
)
def test_the_audience_is_exactly_our_resource(audience: Any) -> None:
    with pytest.raises(SignatureRefused, match="audience"):
        read(signed(claims(aud=audience)))


@pytest.mark.parametrize("issuer", [f"{ISSUER}/", ISSUER.upper(), "https://gate.example.evil.example"])
def test_the_issuer_is_exactly_ours(issuer: str) -> None:
    with pytest.raises(SignatureRefused, match="issuer"):
        read(signed(claims(iss=issuer)))


@pytest.mark.parametrize("kid", [None, "", "other", "../keys/1", "' OR 1=1 --"])
def test_a_key_id_that_is_not_ours_finds_no_key(kid: str | None) -> None:
    with pytest.raises(SignatureRefused, match="kid"):
        read(signed(claims(), kid=kid))


def test_our_key_id_does_not_help_another_key() -> None:
    with pytest.raises(SignatureRefused):
        read(signed(claims(), key=PrivateKey.generate()))


def test_a_token_is_good_from_its_time_to_its_end_give_or_take_the_skew() -> None:
    skew, token = limits.CLOCK_SKEW, signed(claims())
    assert read(token, NOW - skew) == read(token, DELEGATED.expires_at + skew - timedelta(seconds=1))
    for now in (NOW - skew - timedelta(seconds=1), DELEGATED.expires_at + skew):
        with pytest.raises(SignatureRefused):
            read(token, now)


def test_a_token_that_lives_longer_than_any_of_ours_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="lives longer"):
        read(signed(claims(exp=claims()["exp"] + 1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"sid": None},
        {"lnk": None},
        {"act": None},
        {"sid": None, "lnk": None, "act": None},
        {"sub": "agent:coder"},
        {"sub": "user:alice", "act": {"sub": "agent:planner", "iss": ISSUER}},
        {"act": {"sub": "agent:coder", "iss": "https://other.example"}},
        {"act": {"sub": "agent:coder"}},
        {"act": {"sub": "user:coder", "iss": ISSUER}},
        {"act": "agent:coder"},
        {"act": {"sub": "agent:coder", "iss": ISSUER, "act": {"sub": "agent:planner"}}},
        {"act": {"sub": "agent:coder", "iss": ISSUER, "act": {}}},
        {"client_id": "planner"},
        {"client_id": "agent:coder"},
    ],
    ids=str,
)
def test_actor_session_and_link_stand_together_and_the_actor_is_the_client(changes: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        read(signed(claims(**changes)))


def test_a_chain_of_nobody_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="nobody"):
        read(signed({**claims(), "act": None}))


def test_a_token_says_which_key_must_prove_its_uses() -> None:
    bound = replace(DELEGATED, confirmation=Thumbprint("shown"))
    said = access_claims(bound, issuer=ISSUER, audience=AUDIENCE, chain=CHAIN)
    assert said["cnf"] == {"jkt": "shown"} and read(signed(said)) == bound


@pytest.mark.parametrize(
    "cnf",
    [None, {}, "shown", {"jkt": ""}, {"jkt": 7}, {"jwk": {}}, {"jkt": "shown", "jwk": {}}, {"x5t#S256": "y"}],
    ids=str,
)
def test_a_token_that_is_bound_in_another_way_is_refused(cnf: Any) -> None:
    with pytest.raises(SignatureRefused):
        read(signed({**claims(), "cnf": cnf}))


def test_the_chain_of_an_agent_that_works_for_itself_begins_with_it() -> None:
    own = replace(DELEGATED, subject="agent:planner")
    said = access_claims(own, issuer=ISSUER, audience=AUDIENCE, chain=CHAIN)
    assert read(signed(said)) == own
    for other in ("agent:coder", "agent:somebody", "planner", "service:planner"):
        with pytest.raises(SignatureRefused):
            read(signed({**said, "sub": other}))


def test_a_chain_of_actors_is_read_no_deeper_than_chains_are() -> None:
    act: dict[str, Any] = {"sub": "agent:first", "iss": ISSUER}
    for number in range(limits.CHAIN_LINKS - 2):
        act = {"sub": f"agent:{number}", "iss": ISSUER, "act": act}
    said = claims(act={"sub": "agent:coder", "iss": ISSUER, "act": act})
    assert read(signed(said)).actor == "coder"
    deeper = {"sub": "agent:coder", "iss": ISSUER, "act": {"sub": "agent:more", "iss": ISSUER, "act": act}}
    with pytest.raises(SignatureRefused):
        read(signed({**said, "act": deeper}))


def test_a_scope_claim_with_something_else_than_scopes_is_refused() -> None:
    with pytest.raises(InputError):
        read(signed(claims(scope="pr:write  pr::read")))
