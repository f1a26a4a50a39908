"""An agent delegates by token exchange, and the delegate logs in with its own key (RFC 8693)."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.model import Chain
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.scope import parse_scopes
from tests.oauth.house import JWT, TOKEN, claims_of, expect, house, refused

TOOLS = {"acme__merge": {"repo": {"constraint_type": "exact", "value": "api"}}}
BAD_DETAILS = "invalid_authorization_details"
DETAILS = [{"type": "attenuating_agent_token", "tools": TOOLS}]


async def test_a_planner_hands_its_coder_a_link_that_only_the_coder_can_use(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family(scope="pr")
        statement = await h.delegate(
            planner, coder, scope="pr:write", authorization_details=json.dumps(DETAILS), expires_in="600"
        )
        caller = await h.caller(await h.token(coder))
        assert caller.chain is not None and caller.session == session
        link = caller.chain.leaf
        assert caller.chain.links == (root, link) and claims_of(statement)["jti"] == link.id
        assert (link.scope, link.tools) == (parse_scopes("pr:write"), parse_tools(TOOLS))
        assert link.expires_at - link.issued_at == timedelta(minutes=10)


async def test_the_answer_is_a_statement_and_not_a_token_that_its_bearer_could_use(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family(scope="pr")
        answer = expect(await h.exchange(planner, await h.token(planner), requested_actor="coder", scope="pr:write"))
        assert (answer["issued_token_type"], answer["token_type"]) == (JWT, "N_A")
        assert (answer["scope"], answer["expires_in"]) == ("pr:write", 3600)
        said = claims_of(answer["access_token"])
        assert said["cnf"] == {"jkt": coder.key.public.thumbprint}
        assert (said["sub"], said["sid"], said["par"]) == ("user:alice", session.id, root.id)
        assert (said["del_depth"], said["del_max_depth"]) == (1, 1)


async def test_the_delegate_redeems_the_statement_for_a_token_of_that_link(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        first, second = await h.delegate(planner, coder), await h.delegate(planner, coder)
        for statement in (first, second):
            answer = expect(await h.exchange(coder, statement, JWT))
            assert (answer["token_type"], answer["issued_token_type"]) == ("Bearer", TOKEN)
            assert claims_of(answer["access_token"])["lnk"] == claims_of(statement)["jti"]


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
        ({"requested_token_type": TOKEN}, "invalid_request"),
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
        ({"scope": "deploy"}, "access_denied"),
        ({"scope": "mcp:connect"}, "access_denied"),
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


async def test_a_statement_ends_with_its_link(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        statement = await h.delegate(planner, coder)
        await h.revoke("link", claims_of(statement)["jti"])
        refused(await h.exchange(coder, statement, JWT), "invalid_grant")


async def test_a_statement_is_for_the_key_that_it_names(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        stranger = await h.agent("stranger")
        statement = await h.delegate(planner, coder)
        for thief in (planner, stranger):
            refused(await h.exchange(thief, statement, JWT), "invalid_request")


async def test_an_agent_ends_what_it_delegated_and_what_it_holds(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, root = await h.family()
        first, second = await h.delegate(planner, coder), await h.delegate(planner, coder)
        expect(await h.post(planner, "/revoke", token=first))
        expect(await h.post(coder, "/revoke", token=claims_of(second)["jti"]))
        links = [await h.store.link(claims_of(statement)["jti"]) for statement in (first, second)]
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
