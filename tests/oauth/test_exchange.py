"""An agent delegates by token exchange, and the delegate logs in with its own key (RFC 8693)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import TokenRefused
from mcp_authz.principals import AgentName, Chain, Proof
from mcp_authz.rules import jose
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from mcp_authz.store.ports import Event
from tests.oauth.house import JWT, TOKEN, House, claims_of, expect, house, refused

TOOLS = {"acme__merge": {"repo": {"constraint_type": "exact", "value": "api"}}}
BAD_DETAILS = "invalid_authorization_details"
DETAILS = [{"type": "attenuating_agent_token", "tools": TOOLS}]


async def _let(h: House, name: str, **changes: Any) -> None:
    """The operator changes what an agent may."""
    agent = await h.store.agent(AgentName(name))
    assert agent is not None
    await h.store.update_agent(replace(agent, **changes), Event(kind="administration", at=h.clock()))


async def test_a_planner_hands_its_coder_a_link_that_only_the_coder_can_use(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family(scope="pr")
        answer = await h.delegate(
            planner, coder, scope="pr:write", authorization_details=json.dumps(DETAILS), expires_in="600"
        )
        caller = await h.caller(await h.token(coder))
        assert caller.chain is not None and caller.session == session
        link = caller.chain.leaf
        assert caller.chain.links == (root, link) and answer["link"] == link.id
        assert (link.scope, link.tools) == (parse_scopes("pr:write"), parse_tools(TOOLS))
        assert link.expires_at - link.issued_at == timedelta(minutes=10)


async def test_the_answer_is_a_token_that_only_the_delegates_key_can_use(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family(scope="pr")
        form = {"scope": "pr:write", "authorization_details": json.dumps(DETAILS)}
        answer = await h.delegate(planner, coder, **form)
        assert (answer["issued_token_type"], answer["token_type"]) == (TOKEN, "DPoP")
        assert (answer["scope"], answer["subject"]) == ("mcp:connect pr:write", "user:alice")
        assert (answer["session"], answer["authorization_details"]) == (session.id, DETAILS)
        said = claims_of(answer["access_token"])
        actor = {"iss": h.issuer, "sub_profile": "ai_agent"}
        assert said["act"] == {"sub": "agent:coder", **actor, "act": {"sub": "agent:planner", **actor}}
        assert said["cnf"] == {"jkt": coder.key.public.thumbprint} and said["client_id"] == "coder"
        assert (said["sub"], said["sid"], said["lnk"]) == ("user:alice", session.id, answer["link"])
        with pytest.raises(TokenRefused, match="bound"):
            await h.caller(answer["access_token"])
        caller = await h.caller(answer["access_token"], Proof.DPOP)
        assert caller.chain is not None and [link.id for link in caller.chain.links] == [root.id, answer["link"]]


async def test_the_delegates_token_ends_with_the_delegators(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        token = await h.token(planner)
        h.clock.advance(minutes=8)
        answer = await h.delegate(planner, coder, token=token, expires_in="3600")
        assert h.read(answer["access_token"]).expires_at == h.read(token).expires_at
        assert answer["expires_in"] <= 120


async def test_the_delegates_token_ends_with_its_link(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        answer = await h.delegate(planner, coder, expires_in="60")
        assert answer["expires_in"] <= 60


async def test_a_delegate_delegates_from_the_token_it_was_handed_with_its_keys_proof(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        tester = await h.agent("tester")
        await _let(h, "coder", depth=1, delegates_to=frozenset({tester.name}))
        handed = (await h.delegate(planner, coder))["access_token"]
        form = {"requested_actor": "agent:tester"}
        refused(await h.exchange(coder, handed, **form), "invalid_dpop_proof")
        stranger = h.proof(PrivateKey.generate())
        refused(await h.exchange(coder, handed, headers=stranger, **form), "invalid_dpop_proof")
        answer = expect(await h.exchange(coder, handed, headers=h.proof(coder.key), **form))
        chain = claims_of(answer["access_token"])["act"]
        assert (chain["sub"], chain["act"]["sub"], chain["act"]["act"]["sub"]) == (
            "agent:tester",
            "agent:coder",
            "agent:planner",
        )


async def test_a_delegate_signs_in_for_the_link_that_it_names_when_it_has_several(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        links = [(await h.delegate(planner, coder))["link"] for _ in range(2)]
        for link in links:
            answer = await h.sign_in(coder, claims={"delegation": link})
            assert (answer["token_type"], answer["link"]) == ("Bearer", link)
            assert claims_of(answer["access_token"])["lnk"] == link
        assert "link" not in await h.sign_in(coder)


async def test_no_more_is_delegated_than_the_token_carries(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        token = await h.token(planner, scope="pr:read")
        answer = await h.delegate(planner, coder, token=token)
        assert answer["scope"] == "mcp:connect pr:read"
        refused(await h.exchange(planner, token, requested_actor="coder", scope="pr"), "invalid_scope")
        bare = await h.token(planner, scope="mcp:connect")
        refused(await h.exchange(planner, bare, requested_actor="coder"), "invalid_scope")
        refused(await h.exchange(planner, bare, requested_token_type=JWT), "invalid_scope")


async def test_an_agent_that_works_for_itself_delegates_in_its_own_name(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        more = {"purpose": "nightly", "scope": parse_scopes("pr"), "by": "user:alice"}
        session, _ = await h.sessions.start_own("planner", **more)
        token = await h.token(planner, claims={"session": session.id})
        answer = await h.delegate(planner, coder, token=token)
        said = claims_of(answer["access_token"])
        assert (answer["subject"], said["sub"], said["act"]["act"]["sub"]) == ("agent:planner",) * 3
        chain = h.derive(await h.root(planner, token), planner, coder)
        assert (await h.redeem(coder, chain))["subject"] == "agent:planner"
        await h.revoke("person", "alice")
        refused(await h.exchange(coder, chain, JWT), "invalid_grant")


async def test_the_token_of_a_delegate_shows_who_delegated_to_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        await h.delegate(planner, coder)
        act = claims_of(await h.token(coder))["act"]
        assert (act["sub"], act["act"]["sub"]) == ("agent:coder", "agent:planner")


async def test_the_client_may_name_itself_as_actor(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _, _ = await h.family()
        token = await h.token(planner)
        answer = await h.exchange(planner, token, requested_actor="coder", actor_token=token, actor_token_type=TOKEN)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"requested_actor": ""}, "invalid_request"),
        ({"requested_actor": "user:coder"}, "invalid_request"),
        ({"requested_actor": "agent:agent:coder"}, "invalid_request"),
        ({"requested_actor": "agent:stranger"}, "access_denied"),
        ({"requested_actor": "agent:planner"}, "access_denied"),
        ({"requested_token_type": JWT}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_actor": "agent:coder/worker-7"}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token": "a.b.c"}, "invalid_request"),
        ({"actor_token": "a.b.c"}, "invalid_request"),
        ({"actor_token_type": TOKEN}, "invalid_request"),
        ({"actor_token": "a.b.c", "actor_token_type": JWT}, "invalid_request"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"audience": "https://other.example"}, "invalid_target"),
        ({"scope": "pr::write"}, "invalid_scope"),
        ({"scope": "deploy"}, "invalid_scope"),
        ({"scope": "mcp:connect"}, "invalid_scope"),
        ({"expires_in": "-1"}, "invalid_request"),
        ({"expires_in": "0"}, "invalid_request"),
        ({"expires_in": "1e3"}, "invalid_request"),
        ({"expires_in": "\u0661"}, "invalid_request"),
        ({"expires_in": "9999999999"}, "invalid_request"),
        ({"max_calls": "0"}, "invalid_request"),
        ({"max_depth": "7"}, "access_denied"),
        ({"authorization_details": "{}"}, BAD_DETAILS),
        ({"authorization_details": "[]"}, BAD_DETAILS),
        ({"authorization_details": "[1]"}, BAD_DETAILS),
        ({"authorization_details": json.dumps(DETAILS * 2)}, BAD_DETAILS),
        ({"authorization_details": json.dumps([{**DETAILS[0], "more": 1}])}, BAD_DETAILS),
        ({"authorization_details": json.dumps([{**DETAILS[0], "type": "other"}])}, BAD_DETAILS),
        ({"authorization_details": '[{"type":"attenuating_agent_token","tools":{},"tools":{}}]'}, BAD_DETAILS),
        ({"authorization_details": json.dumps([{**DETAILS[0], "tools": {"a": {"b": {}}}}])}, BAD_DETAILS),
    ],
    ids=str,
)
async def test_an_exchange_that_is_not_in_order_issues_nothing_and_is_recorded(
    tmp_path: Path, form: dict[str, str], code: str
) -> None:
    async with house(tmp_path) as h:
        planner, _, session, root = await h.family()
        base = {"subject_token": await h.token(planner), "kind": TOKEN, "requested_actor": "agent:coder"}
        base |= {"kind": form.get("subject_token_type", TOKEN)}
        extra = {name: value for name, value in form.items() if name != "subject_token_type"}
        refused(await h.exchange(planner, **{**base, **extra}), code)
        assert await h.store.links(session.id) == (root,)
        denied = [f for kind in ("sign-in", "delegation") for f in await h.events(kind) if f.get("decision") == "deny"]
        assert len(denied) == 1


async def test_an_exchange_needs_a_session_to_delegate_from(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, _ = await h.family()
        token = await h.token(planner)
        await h.revoke("session", session.id)
        refused(await h.exchange(planner, token, requested_actor="coder"), "invalid_request")
        refused(await h.exchange(coder, await h.token(coder), requested_actor="planner"), "invalid_request")


async def test_what_was_exchanged_ends_with_its_link(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        answer = await h.delegate(planner, coder)
        await h.revoke("link", answer["link"])
        with pytest.raises(TokenRefused):
            await h.caller(answer["access_token"], Proof.DPOP)
        assert claims_of(await h.token(coder, claims={"delegation": answer["link"]}))["sub"] == "agent:coder"


async def test_a_grant_type_that_is_not_there_is_said_to_be_unsupported(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner")
        refused(await h.post(planner, grant_type="password"), "unsupported_grant_type")


async def test_no_refusal_says_what_the_gateway_knows(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        answers = [
            await h.exchange(coder, await h.token(planner), requested_actor="coder"),
            await h.exchange(planner, await h.token(planner), requested_actor="stranger"),
            await h.exchange(planner, await h.token(planner), JWT),
            await h.exchange(planner, "a.b.c", requested_actor="coder"),
        ]
        for answer in answers:
            assert answer.status_code == 400
            for secret in (session.id, root.id, planner.key.public.thumbprint, "alice", "Error", "Traceback"):
                assert secret not in answer.text


async def test_an_agent_ends_what_it_delegated_and_what_it_holds(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await h.family()
        first, second = await h.delegate(planner, coder), await h.delegate(planner, coder)
        expect(await h.post(planner, "/revoke", token=first["access_token"]))
        expect(await h.post(coder, "/revoke", token=second["link"]))
        links = [await h.store.link(answer["link"]) for answer in (first, second)]
        assert [link.status for link in links if link] == ["revoked", "revoked"]
        expect(await h.post(planner, "/revoke", token=await h.token(planner)))
        ended = await h.store.link(root.id)
        assert ended is not None and ended.status == "revoked"
        assert [fields["by"] for fields in await h.events("revocation")] == [
            "agent:planner",
            "agent:coder",
            "agent:planner",
        ]


async def test_revoking_what_is_unknown_or_somebody_elses_answers_alike_and_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await h.family()
        await h.delegate(planner, coder)
        planners = await h.token(planner)
        for token in ("nothing", "l_nothing", root.id, planners):
            assert expect(await h.post(coder, "/revoke", token=token)) == {}
        refused(await h.post(coder, "/revoke"), "invalid_request")
        assert await h.events("revocation") == [] and (await h.caller(planners)).chain == Chain(links=(root,))


async def test_why_an_agent_was_refused_is_recorded_no_longer_than_a_record_may_be(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        above, text = parse_chain(h.derive(await h.root(planner), planner, coder))
        wide = " ".join(sorted(f"s{number}:{'x' * 40}" for number in range(100)))
        claims = {**jose.read(text).claims, "scope": wide}
        chain = write_chain([above, jose.sign(claims, typ=TYP, key=planner.key)])
        refused(await h.exchange(coder, chain, JWT), "invalid_request")
        (record,) = [fields for fields in await h.events("sign-in") if fields["decision"] == "deny"]
        assert 100 < len(record["reason"]) <= limits.DETAIL_RECORDED
