"""Which session a sign-in is for: named, the only one, from the only grant, or none; never a guess (DESIGN 6)."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcp_authz import limits
from tests.oauth.house import House, office


async def test_the_only_open_link_is_taken(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        assert await h.sessions.which(coder.name) is None
        opened = await h.start(coder)
        assert await h.sessions.which(coder.name) == opened


async def test_a_claim_chooses_between_several_and_nothing_else_does(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        first, second = await h.start(coder), await h.start(coder)
        assert await h.sessions.which(coder.name) is None
        for session, link in (first, second):
            assert await h.sessions.which(coder.name, session=session.id) == (session, link)
            assert await h.sessions.which(coder.name, delegation=link.id) == (session, link)
        assert await h.sessions.which(coder.name, session=first[0].id, delegation=second[1].id) is None


async def test_a_claim_that_names_nothing_open_is_not_replaced_by_the_only_open_link(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder)
        assert await h.sessions.which(coder.name, session="s_other") is None
        assert await h.sessions.which(coder.name, delegation="l_other") is None


async def test_a_claim_never_names_somebody_elses_session(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        await h.start(coder)
        assert await h.sessions.which(coder.name, session=session.id) is None
        assert await h.sessions.which(coder.name, delegation=root.id) is None


async def test_two_links_in_one_session_are_told_apart_by_the_delegation_claim_only(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        one = await h.link(root, session, coder.name)
        two = await h.link(root, session, coder.name)
        assert await h.sessions.which(coder.name, session=session.id) is None
        for link in (one, two):
            assert await h.sessions.which(coder.name, session=session.id, delegation=link.id) == (session, link)


async def test_a_sign_in_opens_a_session_from_the_only_grant(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        grant = await h.grant(coder)
        chosen = await h.sessions.which(coder.name)
        assert chosen is not None and chosen[0].grant == grant.id
        assert await h.sessions.which(coder.name) == chosen
        (fields,) = await h.events("session")
        assert (fields["by"], fields["purpose"]) == ("agent:coder", "started at sign-in")


async def test_many_sign_ins_at_once_open_one_session(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.grant(coder)
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(h.sessions.which, coder.name)
        assert len(await h.store.sessions()) == 1


async def test_several_grants_are_no_grant(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.grant(coder)
        await h.grant(coder)
        assert await h.sessions.which(coder.name) is None and await h.store.sessions() == ()


async def test_a_claim_opens_no_session(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.grant(coder)
        assert await h.sessions.which(coder.name, session="s_other") is None and await h.store.sessions() == ()


@pytest.mark.parametrize("kind", ["grant", "person"])
async def test_a_grant_that_has_ended_opens_nothing(tmp_path: Path, kind: str) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        grant = await h.grant(coder)
        await h.revoke(kind, {"grant": grant.id, "person": "alice"}[kind])
        assert await h.sessions.which(coder.name) is None


async def test_an_expired_grant_opens_nothing(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.grant(coder)
        h.clock.ahead = limits.GRANT_LIFETIME
        assert await h.sessions.which(coder.name) is None


async def test_after_a_session_ran_out_the_grant_opens_the_next(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.grant(coder)
        first = await h.sessions.which(coder.name)
        h.clock.ahead = limits.SESSION_IDLE
        second = await h.sessions.which(coder.name)
        assert first is not None and second is not None and first[0].id != second[0].id


@pytest.mark.parametrize("kind", ["session", "link"])
async def test_a_session_that_somebody_ended_is_not_followed_by_another(tmp_path: Path, kind: str) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        grant = await h.grant(coder)
        session, link = await _opened(h, coder.name)
        await h.revoke(kind, {"session": session, "link": link}[kind])
        assert await h.sessions.which(coder.name) is None
        h.clock.ahead = limits.SESSION_LIFETIME
        assert await h.sessions.which(coder.name) is None
        started = await h.sessions.start(grant, purpose="again", by="user:alice")
        assert await h.sessions.which(coder.name) == started


async def _opened(h: House, agent: object) -> tuple[str, str]:
    chosen = await h.sessions.which(agent)  # type: ignore[arg-type]
    assert chosen is not None
    return chosen[0].id, chosen[1].id
