"""An agent signs in with its key (RFC 6749 section 4.4, RFC 7523)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mcp_authz import limits
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Event
from tests.oauth.house import ASSERTION_TYPE, OPERATOR, claims_of, house, refused

GRANT = {"grant_type": "client_credentials"}


async def test_an_enrolled_agent_without_any_grant_gets_a_short_token_in_its_own_name(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        answer = await h.sign_in(coder, scope="pr:write deploy")
        assert (answer["token_type"], answer["scope"], answer["expires_in"]) == ("Bearer", "mcp:connect", 60)
        caller = await h.caller(answer["access_token"])
        assert caller.agent.name == "coder" and caller.session is None and caller.token.subject == "agent:coder"


async def test_a_token_names_person_actor_session_link_and_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        session, link = await h.start(coder)
        said = claims_of(await h.token(coder))
        assert (said["sub"], said["client_id"], said["aud"], said["iss"]) == (
            "user:alice",
            "coder",
            h.resource,
            h.issuer,
        )
        assert said["act"] == {"sub": "agent:coder", "iss": h.issuer, "sub_profile": "ai_agent"}
        assert (said["sid"], said["lnk"], said["akt"]) == (session.id, link.id, coder.key.public.thumbprint)


async def test_a_token_never_outlives_its_link(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        _, link = await h.start(coder, lifetime=timedelta(minutes=3))
        token = h.read(await h.token(coder))
        assert token.expires_at <= link.expires_at


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, "mcp:connect pr:write secret:read"),
        ("mcp:connect", "mcp:connect"),
        ("pr:write:acme", "mcp:connect pr:write:acme"),
        ("pr", "mcp:connect pr:write"),
        ("* deploy", "mcp:connect pr:write secret:read"),
        ("deploy", "mcp:connect"),
        ("mcp:admin", "mcp:connect"),
        ("secret:read:a secret:write", "mcp:connect secret:read:a"),
    ],
)
async def test_what_is_asked_too_widely_is_narrowed_and_never_refused(
    tmp_path: Path, asked: str | None, given: str
) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder", "pr:write secret:read")
        await h.start(coder, "pr:write secret:read")
        form: dict[str, Any] = {} if asked is None else {"scope": asked}
        answer = await h.sign_in(coder, **form)
        assert answer["scope"] == given == claims_of(answer["access_token"])["scope"]


async def test_a_scope_that_is_no_scope_is_the_one_that_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        refused(await h.post(coder, **GRANT, scope="pr::write"), "invalid_scope")
        (fields,) = await h.events("sign-in")
        assert (fields["actor"], fields["decision"]) == ("agent:coder", "deny")


async def test_a_ceiling_that_was_lowered_since_narrows_the_next_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder", "pr secret:read")
        await h.start(coder, "pr secret:read")
        lower = replace((await h.agents.show("coder")).agent, ceiling=parse_scopes("pr:read"))
        await h.store.update_agent(lower, Event(kind="administration", at=h.clock()))
        assert (await h.sign_in(coder))["scope"] == "mcp:connect pr:read"


async def test_a_parameter_with_two_values_has_none(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        form = {**GRANT, "client_assertion_type": ASSERTION_TYPE, "client_assertion": h.assertion(coder)}
        for again in (("scope", "pr"), ("resource", h.resource), ("client_assertion", form["client_assertion"])):
            body = urlencode([*form.items(), ("scope", "pr"), ("resource", h.resource), again])
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            refused(await h.http.post(f"{h.issuer}/token", content=body.encode(), headers=headers), "invalid_request")


async def test_a_sign_in_is_recorded_without_the_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        token = await h.token(coder)
        (fields,) = await h.events("sign-in")
        assert (fields["actor"], fields["key"]) == ("agent:coder", coder.key.public.thumbprint)
        assert fields["token"] == claims_of(token)["jti"] and token not in str(fields)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "planner"},
        {"iss": None},
        {"sub": "planner"},
        {"sub": None},
        {"sub": "nobody", "iss": "nobody"},
        {"sub": "agent:coder", "iss": "agent:coder"},
        {"aud": "https://other.example"},
        {"aud": None},
        {"aud": []},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 257},
        {"jti": 7},
        {"exp": None},
        {"exp": "soon"},
        {"session": 7},
        {"delegation": ["l_1"]},
    ],
    ids=str,
)
async def test_an_assertion_says_all_that_it_must_and_nothing_else(tmp_path: Path, claims: dict[str, Any]) -> None:
    async with house(tmp_path) as h:
        await h.agent("planner")
        coder = await h.agent("coder")
        refused(await h.post(coder, **GRANT, client_assertion=h.assertion(coder, **claims)), "invalid_client")
        assert await h.events("sign-in") == [] and h.refusals.total() == 1


async def test_the_audience_of_an_assertion_is_the_issuer_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        for audience in (f"{h.issuer}/token", f"{h.issuer}/", h.resource, [h.issuer, "https://other.example"]):
            answer = await h.post(coder, **GRANT, client_assertion=h.assertion(coder, aud=audience))
            refused(answer, "invalid_client")
        assert await h.sign_in(coder, claims={"aud": [h.issuer]})


async def test_an_assertion_counts_once(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        assertion = h.assertion(coder)
        assert (await h.post(coder, **GRANT, client_assertion=assertion)).status_code == 200
        refused(await h.post(coder, **GRANT, client_assertion=assertion), "invalid_client")


async def test_two_agents_may_choose_the_same_assertion_id(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for name in ("coder", "planner"):
            assert await h.sign_in(await h.agent(name), claims={"jti": "1"})


@pytest.mark.parametrize("typ", ["JWT", "jwt", "application/jwt", "client-authentication+jwt"])
async def test_an_assertion_may_have_either_of_its_two_types(tmp_path: Path, typ: str) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        assert (await h.post(coder, **GRANT, client_assertion=h.assertion(coder, typ=typ))).status_code == 200


async def test_unknown_forged_revoked_and_replaced_are_answered_alike(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        gone, rotated = await h.agent("gone"), await h.agent("rotated")
        await h.revoke("agent", "gone")
        await h.agents.rotate("rotated", PrivateKey.generate().public, timedelta(hours=1), by=OPERATOR)
        answers = [
            await h.post(coder, **GRANT, client_assertion=h.assertion(coder, sub="nobody", iss="nobody")),
            await h.post(coder, **GRANT, client_assertion=h.assertion(coder, key=PrivateKey.generate())),
            await h.post(gone, **GRANT),
            await h.post(rotated, **GRANT),
        ]
        assert {(answer.status_code, answer.text) for answer in answers} == {(400, answers[0].text)}
        assert h.refusals.total() == 4 and await h.events("sign-in") == []


async def test_a_new_key_signs_in_as_soon_as_it_is_there(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        await h.agents.rotate("coder", new.public, timedelta(hours=1), by=OPERATOR)
        answer = await h.post(coder, **GRANT, client_assertion=h.assertion(coder, key=new))
        assert claims_of(answer.json()["access_token"])["akt"] == new.public.thumbprint


@pytest.mark.parametrize(
    "form",
    [
        {"client_assertion": ""},
        {"client_assertion": "a.b.c"},
        {"client_assertion": "x" * 20000},
        {"client_assertion_type": ""},
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_id": "planner"},
        {"client_secret": "guess"},
    ],
    ids=str,
)
async def test_nothing_but_one_assertion_of_the_named_client_proves_a_client(
    tmp_path: Path, form: dict[str, str]
) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        refused(await h.post(coder, **GRANT, **form), "invalid_client")


async def test_a_second_authentication_method_beside_the_assertion_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        form = {**GRANT, "client_assertion_type": ASSERTION_TYPE, "client_assertion": h.assertion(coder)}
        answer = await h.http.post(f"{h.issuer}/token", data=form, headers={"Authorization": "Basic Y29kZXI6eA=="})
        refused(answer, "invalid_client")


async def test_the_client_id_may_be_repeated_beside_the_assertion(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        assert await h.sign_in(await h.agent("coder"), client_id="coder")


async def test_nothing_that_was_sent_is_sent_back(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        for name in ("grant_type", "scope", "resource", "client_assertion", "client_id", "client_assertion_type"):
            answer = await h.post(coder, **{**GRANT, name: "can\u00e4ry::"})
            assert answer.status_code == 400 and "ry::" not in answer.text


async def test_a_session_in_the_assertion_decides_between_several(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder)
        session, _ = await h.start(coder)
        assert claims_of(await h.token(coder)).get("sid") is None
        assert claims_of(await h.token(coder, claims={"session": session.id}))["sid"] == session.id


async def test_a_session_whose_budget_is_used_up_stays_the_session(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        grant = await h.grant(coder)
        session, _ = await h.sessions.start(grant, purpose="one call", max_calls=1, by=OPERATOR)
        assert await h.spend(await h.caller(await h.token(coder)))
        assert claims_of(await h.token(coder))["sid"] == session.id
        assert len(await h.store.sessions()) == 1


async def test_a_token_endpoint_without_its_store_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.store.aclose()
        answer = await h.post(coder, **GRANT)
        assert (answer.status_code, answer.json()) == (503, {"error": "temporarily_unavailable"})


async def test_the_lifetime_of_a_token_is_bounded(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder)
        said = claims_of(await h.token(coder))
        assert said["exp"] - said["iat"] == limits.ACCESS_TOKEN_LIFETIME.total_seconds()
