"""Steps 5 and 6: a token counts as long as everything it stands on does, and is asked at every use."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import TokenRefused
from mcp_authz.ids import new_id
from mcp_authz.principals import AccessToken, AgentName, Chain, Link, LinkId, Proof, SessionId, Thumbprint
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import OPERATOR, Actor, House, office


def token_of(h: House, actor: Actor, link: Link | None, subject: str = "user:alice") -> AccessToken:
    """A verified token, as step 3 hands it on."""
    return AccessToken(
        id=new_id("t"),
        client_id=actor.name,
        actor=actor.name,
        key=Thumbprint(actor.key.public.thumbprint),
        subject=subject if link is not None else f"agent:{actor.name}",
        session=None if link is None else link.session,
        link=None if link is None else link.id,
        scope=frozenset(),
        issued_at=h.clock(),
        expires_at=h.clock() + limits.ACCESS_TOKEN_LIFETIME,
    )


async def test_a_caller_is_known_with_everything_its_token_stands_on(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        link = await h.link(root, session, coder.name)
        token = token_of(h, coder, link)
        caller = await h.sessions.identify(token, Proof.SIGNED)
        assert (caller.agent.name, caller.key, caller.proof, caller.token) == ("coder", token.key, Proof.SIGNED, token)
        assert caller.session == session and caller.chain == Chain(links=(root, link)) and not caller.session_over
        assert caller.person is not None and caller.person.name == "alice"
        assert caller.grant is not None and caller.grant.id == session.grant
        assert caller.holders.keys() == {"planner", "coder"}


async def test_an_agent_in_its_own_name_has_neither_person_nor_session(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        caller = await h.sessions.identify(token_of(h, coder, None), Proof.BEARER)
        assert [caller.person, caller.grant, caller.session, caller.chain] == [None] * 4 and not caller.session_over


@pytest.mark.parametrize("kind", ["link", "root", "grant", "person", "agent", "key", "planner"])
async def test_revoking_anything_a_token_stands_on_ends_it_at_the_next_use(tmp_path: Path, kind: str) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        link = await h.link(root, session, coder.name)
        token = token_of(h, coder, link)
        await h.sessions.identify(token, Proof.BEARER)
        kinds = {
            "link": ("link", link.id),
            "root": ("link", root.id),
            "grant": ("grant", session.grant),
            "person": ("person", "alice"),
            "agent": ("agent", "coder"),
            "key": ("key", coder.key.public.thumbprint),
            "planner": ("agent", "planner"),
        }
        await h.revoke(*kinds[kind])
        with pytest.raises(TokenRefused):
            await h.sessions.identify(token, Proof.BEARER)


@pytest.mark.parametrize("way", ["revoked", "idle", "expired"])
async def test_a_session_that_is_over_is_told_apart_from_a_token_that_is_bad(tmp_path: Path, way: str) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        session, root = await h.start(coder, lifetime=timedelta(hours=1))
        token = token_of(h, coder, root)
        if way == "revoked":
            await h.revoke("session", session.id)
        else:
            h.clock.ahead = limits.SESSION_IDLE if way == "idle" else timedelta(hours=1)
        caller = await h.sessions.identify(token, Proof.BEARER)
        assert [caller.person, caller.grant, caller.session, caller.chain] == [None] * 4 and caller.session_over


async def test_a_link_that_ran_out_before_its_session_ends_the_token(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        link = await h.link(root, session, coder.name, lifetime=timedelta(minutes=10))
        token = token_of(h, coder, link)
        h.clock.advance(minutes=10)
        with pytest.raises(TokenRefused):
            await h.sessions.identify(token, Proof.BEARER)


async def test_an_expired_grant_ends_the_token(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        grant = await h.grant(coder, lifetime=timedelta(minutes=10))
        _, root = await h.sessions.start(grant, purpose="test", by=OPERATOR)
        token = token_of(h, coder, root)
        h.clock.advance(minutes=10)
        with pytest.raises(TokenRefused):
            await h.sessions.identify(token, Proof.BEARER)


async def test_a_rotated_key_stands_behind_older_tokens_until_the_overlap_has_passed(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        token = token_of(h, coder, None)
        await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(minutes=5), by=OPERATOR)
        await h.sessions.identify(token, Proof.BEARER)
        h.clock.advance(minutes=5)
        with pytest.raises(TokenRefused):
            await h.sessions.identify(token, Proof.BEARER)


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": AgentName("planner")},
        {"actor": AgentName("nobody")},
        {"key": Thumbprint("unknown")},
        {"subject": "user:bob"},
        {"subject": "user:nobody"},
        {"subject": "agent:coder"},
        {"session": SessionId("s_other")},
        {"session": None},
        {"link": LinkId("l_other")},
        {"link": None},
        {"link": None, "session": None},
    ],
    ids=str,
)
async def test_a_token_whose_parts_do_not_belong_together_is_refused(tmp_path: Path, changes: Any) -> None:
    async with office(tmp_path) as h:
        await h.person("bob")
        _, coder, session, root = await h.family()
        link = await h.link(root, session, coder.name)
        with pytest.raises(TokenRefused):
            await h.sessions.identify(replace(token_of(h, coder, link), **changes), Proof.BEARER)


async def test_a_token_does_not_stand_on_the_link_of_another_holder(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, _, root = await h.family()
        with pytest.raises(TokenRefused):
            await h.sessions.identify(token_of(h, coder, root), Proof.BEARER)


async def test_a_token_does_not_stand_on_the_key_of_another_agent(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        token = replace(token_of(h, coder, None), key=Thumbprint(planner.key.public.thumbprint))
        with pytest.raises(TokenRefused):
            await h.sessions.identify(token, Proof.BEARER)
