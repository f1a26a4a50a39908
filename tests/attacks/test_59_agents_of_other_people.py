"""Row 59: a person makes somebody else's agent work for them, or for nobody, by agreeing to it at the page."""

from __future__ import annotations

from pathlib import Path

from mcp_authz.principals import AgentName
from tests.oauth.house import CALLBACK, TOKEN, VERIFIER, House, expect, house, refused


async def for_whom(h: House, agent: AgentName) -> set[str]:
    return {f"{grant.subject}" for grant in await h.sessions.active_grants(agent)}


async def test_nobody_draws_an_agent_to_themselves_by_agreeing_to_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.person("mallory")
        app, coder = await h.client(), await h.agent("coder")
        await h.agreed(app, "mallory", actor=coder)
        assert (await h.sign_in(coder))["subject"] == "agent:coder", "it asked for nothing of hers"
        assert await for_whom(h, coder.name) == set(), "and would ask its own owner for a session"


async def test_nobody_keeps_an_agent_from_its_person_by_agreeing_to_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.person("mallory")
        app, coder = await h.client(), await h.agent("coder")
        await h.grant(coder)
        await h.agreed(app, "mallory", actor=coder)
        assert (await h.sign_in(coder))["subject"] == "user:alice"


async def test_what_the_agent_took_itself_it_goes_on_with(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder = await h.client(), await h.agent("coder")
        code = await h.agreed(app, actor=coder)
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        first = expect(await h.post(coder, **form))
        assert (await h.sign_in(coder))["session"] == first["session"]
        h.clock.advance(hours=13)
        later = await h.sign_in(coder)
        assert later["subject"] == "user:alice" and later["session"] != first["session"]


async def test_a_client_that_was_stopped_has_no_agent_act_for_it_any_more(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        app, coder = await h.client(), await h.agent("coder")
        code = await h.agreed(app, actor=coder)
        form = {"actor_token": await h.token(coder), "actor_token_type": TOKEN}
        said = expect(await h.redeem_code(app, code, **form))
        headers = {"Authorization": f"Bearer {said['access_token']}"}
        assert (await h.http.post(h.resource, json={}, headers=headers)).status_code == 200
        await h.revoke("client", app.id)
        assert (await h.http.post(h.resource, json={}, headers=headers)).status_code == 401
        refused(await h.redeem_code(app, code, **form), "invalid_client")
        assert (await h.sign_in(coder))["subject"] == "agent:coder"
