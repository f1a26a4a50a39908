"""Row 12: what an agent was given in another delegation, session or grant does not add to the one it acts by."""

from __future__ import annotations

from pathlib import Path

from mcp_authz.principals import AgentName
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import parse_chain, write_chain
from tests.oauth.house import JWT, Actor, House, expect, house, refused


async def _given(h: House) -> tuple[Actor, Actor, Actor, str, str]:
    """coder has `pr:read` and `secret:read` by two links of one session."""
    names = frozenset({AgentName("coder"), AgentName("tester")})
    planner = await h.agent("planner", depth=3, delegates_to=names)
    coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("tester")}))
    tester = await h.agent("tester")
    await h.start(planner, "pr secret:read")
    root = await h.root(planner)
    reads = h.derive(root, planner, coder, scope="pr:read", depth=1)
    secrets = h.derive(root, planner, coder, scope="secret:read", depth=1)
    return planner, coder, tester, reads, secrets


async def test_the_token_of_one_link_has_nothing_of_its_sibling(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, coder, _, reads, secrets = await _given(h)
        for chain, scope in ((reads, "pr:read"), (secrets, "secret:read")):
            answer = await h.redeem(coder, chain, scope="pr:read secret:read")
            assert answer["scope"] == f"mcp:connect {scope}"
            caller = await h.caller(answer["access_token"])
            assert caller.chain is not None and caller.chain.leaf.scope == parse_scopes(scope)


async def test_what_is_delegated_comes_from_one_link_and_not_from_both(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, coder, tester, reads, secrets = await _given(h)
        tokens = [(await h.redeem(coder, chain))["access_token"] for chain in (reads, secrets)]
        for token, other in zip(tokens, ("secret:read", "pr:read"), strict=True):
            refused(await h.exchange(coder, token, requested_actor="tester", scope=other), "invalid_scope")
        mixed = write_chain([*parse_chain(reads), parse_chain(h.derive(secrets, coder, tester))[-1]])
        refused(await h.exchange(tester, mixed, JWT), "invalid_request")


async def test_another_session_of_the_same_agent_lends_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, reads, _ = await _given(h)
        own, _ = await h.start(coder, "secret:read")
        token = await h.token(coder, claims={"session": own.id})
        refused(await h.exchange(coder, token, requested_actor="tester", scope="pr:read"), "invalid_scope")
        answer = await h.redeem(coder, reads)
        form = {"actor_token": token, "actor_token_type": "urn:ietf:params:oauth:token-type:access_token"}
        asked = {"requested_actor": "tester", "scope": "secret:read"}
        refused(await h.exchange(coder, answer["access_token"], **asked), "invalid_scope")
        refused(await h.exchange(coder, answer["access_token"], **asked, **form), "invalid_request")
        assert planner.name == "planner" and tester.name == "tester"


async def test_the_ceiling_of_an_agent_gives_nothing_that_its_link_does_not(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, coder, tester, reads, _ = await _given(h)
        chain = h.derive(reads, coder, tester)
        assert (await h.redeem(tester, chain, scope="pr secret:read"))["scope"] == "mcp:connect pr:read"


async def test_a_sibling_that_ended_takes_nothing_with_it_and_one_that_lives_saves_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, coder, _, reads, secrets = await _given(h)
        kept, ended = await h.redeem(coder, reads), await h.redeem(coder, secrets)
        await h.revoke("link", ended["link"])
        assert (await h.caller(kept["access_token"])).chain is not None
        refused(await h.exchange(coder, secrets, JWT), "invalid_grant")
        refused(await h.exchange(coder, ended["access_token"], requested_actor="tester"), "invalid_request")
        expect(await h.exchange(coder, kept["access_token"], requested_actor="tester"))
