"""Codes and refresh tokens, in every store: each counts once, for its grant, in time, however many ask at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from mcp_authz.authorization import AuthorizationCode, RefreshToken, RegisteredClient
from mcp_authz.errors import Conflict
from mcp_authz.principals import Agent, AgentName, Authentication, ClientId, Grant, GrantId, Link, Session
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Event, Store
from tests.store.conftest import Stores
from tests.store.world import ALICE, BOB, HOUR, MINUTE, START, event, link, person, session

CLIENT, CURSOR = ClientId("cursor-id"), AgentName("cursor@alice")
G1, G2 = GrantId("g_1"), GrantId("g_2")
CODE, FIRST, SECOND = (bytes([number]) * 32 for number in (1, 2, 3))


def client(id_: str = CLIENT, handle: str = "cursor") -> RegisteredClient:
    return RegisteredClient(
        id=ClientId(id_),
        handle=handle,
        name="Cursor",
        kind="registered",
        redirect_uris=("http://127.0.0.1/callback",),
        registered_at=START,
    )


def agent() -> Agent:
    return Agent(name=CURSOR, owner=ALICE, ceiling=frozenset({Scope("files:read")}), client=CLIENT)


def agreed(id_: str = G1) -> Grant:
    return Grant(
        id=GrantId(id_),
        subject=ALICE,
        agent=CURSOR,
        scope=frozenset({Scope("files:read")}),
        tools=None,
        granted_at=START,
        expires_at=START + 24 * HOUR,
        client=CLIENT,
        authentication=Authentication(at=START, amr=("swk", "user")),
    )


def code(of: str = G1, digest: bytes = CODE) -> AuthorizationCode:
    return AuthorizationCode(
        digest=digest,
        grant=GrantId(of),
        client=CLIENT,
        agent=CURSOR,
        redirect_uri="http://127.0.0.1:3000/callback",
        challenge="c" * 43,
        scope=frozenset({Scope("files:read")}),
        made_at=START,
        expires_at=START + MINUTE,
    )


def refresh(digest: bytes = FIRST, of: str = G1, lives: timedelta = HOUR) -> RefreshToken:
    return RefreshToken(digest=digest, grant=GrantId(of), client=CLIENT, made_at=START, expires_at=START + lives)


def opened(id_: str = "s_1", of: str = G1) -> tuple[Session, Link, Event]:
    new = session(id_, of, CURSOR)
    return new, replace(link(f"l_{id_}", None, CURSOR, id_, 0), max_depth=0), event("session")


async def agree(store: Store) -> None:
    """Alice has let Cursor act for her."""
    await store.add_person(person(), event())
    await store.add_client(client(), event())
    await store.authorize(agent(), agreed(), code(), event("grant"))


async def test_a_consent_is_grant_agent_and_code_together(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        assert await store.code(CODE) == code()
        assert await store.grant(G1) == agreed()
        assert await store.client_agent(CLIENT, ALICE) == agent()
        assert await store.client_grants(CLIENT, ALICE, CURSOR) == (agreed(),)
        assert await store.newest_session(G1) is None


async def test_another_consent_writes_the_ceiling_anew_and_makes_no_other_agent(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        wider = replace(agent(), ceiling=frozenset({Scope("files:read"), Scope("files:write")}))
        await store.authorize(wider, agreed(G2), None, event("grant"))
        assert await store.client_agent(CLIENT, ALICE) == wider
        assert [one.id for one in await store.client_grants(CLIENT, ALICE, CURSOR)] == [G1, G2]


async def test_nobody_agrees_for_what_was_revoked_or_is_somebody_elses(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        await store.add_person(person(BOB), event())
        await store.add_client(client("other-id", "other"), event())
        for wrong, given in (
            (replace(agent(), client=ClientId("other-id")), replace(agreed(G2), client=ClientId("other-id"))),
            (replace(agent(), owner=BOB), replace(agreed(G2), subject=BOB)),
            (agent(), replace(agreed(G2), client=ClientId("unknown"))),
        ):
            with pytest.raises(Conflict):
                await store.authorize(wrong, given, None, event("grant"))
        await store.revoke("client", CLIENT, event("revocation"))
        with pytest.raises(Conflict):
            await store.authorize(agent(), agreed(G2), None, event("grant"))
        assert await store.grant(G2) is None


async def test_a_code_opens_the_session_of_its_grant_once(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        await store.redeem_code(CODE, opened(), refresh())
        found = await store.newest_session(G1)
        assert found is not None and (found[0].id, found[1].id) == ("s_1", "l_s_1")
        used = await store.code(CODE)
        assert used is not None and used.used_at == START
        assert await store.refresh_token(FIRST) == refresh()
        with pytest.raises(Conflict):
            await store.redeem_code(CODE, opened("s_2"), refresh(SECOND))
        assert await store.refresh_token(SECOND) is None and await store.session(opened("s_2")[0].id) is None


async def test_a_code_that_is_too_old_or_another_grants_opens_nothing_and_stays_unused(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        await store.authorize(agent(), agreed(G2), None, event("grant"))
        with pytest.raises(Conflict):
            await store.redeem_code(CODE, opened(of=G2), refresh(of=G2))
        stores.clock.pass_(MINUTE)
        with pytest.raises(Conflict):
            await store.redeem_code(CODE, opened(), refresh())
        there = await store.code(CODE)
        assert there is not None and there.used_at is None
        assert await store.newest_session(G1) is None and await store.refresh_token(FIRST) is None


async def test_a_code_of_a_grant_that_was_revoked_opens_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        await store.revoke("grant", G1, event("revocation"))
        with pytest.raises(Conflict):
            await store.redeem_code(CODE, opened(), refresh())
        there = await store.code(CODE)
        assert there is not None and there.used_at is None  # the whole of it was undone


async def test_a_refresh_token_is_followed_by_the_next_once(stores: Stores) -> None:
    async with stores.open() as store:
        await agree(store)
        await store.redeem_code(CODE, opened(), refresh())
        await store.rotate(FIRST, refresh(SECOND), None)
        used = await store.refresh_token(FIRST)
        assert used is not None and used.used_at == START
        with pytest.raises(Conflict):
            await store.rotate(FIRST, refresh(b"\x09" * 32), opened("s_2"))
        found = await store.newest_session(G1)
        assert found is not None and found[0].id == "s_1"
        stores.clock.pass_(MINUTE)
        new, root, said = opened("s_2")
        await store.rotate(SECOND, refresh(b"\x09" * 32), (replace(new, started_at=stores.clock.now), root, said))
        found = await store.newest_session(G1)
        assert found is not None and found[0].id == "s_2"


@pytest.mark.parametrize("how", ["expired", "another grant", "revoked", "grant expired"])
async def test_a_refresh_token_that_does_not_count_is_followed_by_nothing(stores: Stores, how: str) -> None:
    async with stores.open() as store:
        await agree(store)
        await store.authorize(agent(), agreed(G2), None, event("grant"))
        await store.redeem_code(CODE, opened(), refresh(lives=48 * HOUR if how == "grant expired" else HOUR))
        after = refresh(SECOND, G2 if how == "another grant" else G1)
        if how == "revoked":
            await store.revoke("grant", G1, event("revocation"))
        stores.clock.pass_({"expired": HOUR, "grant expired": 24 * HOUR}.get(how, timedelta()))
        with pytest.raises(Conflict):
            await store.rotate(FIRST, after, None)
        assert await store.refresh_token(SECOND) is None
        there = await store.refresh_token(FIRST)
        assert there is not None and there.used_at is None


async def test_of_twenty_redemptions_at_once_one_wins(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await agree(store)
        won = list[int]()

        async def redeem(number: int) -> None:
            try:
                at = store if number % 2 else other
                await at.redeem_code(CODE, opened(f"s_{number}"), refresh(bytes([100 + number]) * 32))
            except Conflict:
                return
            won.append(number)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(redeem, number)
        assert len(won) == 1
        sessions = [one for one in await store.sessions() if one.grant == G1]
        assert [one.id for one in sessions] == [f"s_{won[0]}"]


async def test_of_twenty_rotations_at_once_one_wins(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await agree(store)
        await store.redeem_code(CODE, opened(), refresh())
        won = list[int]()

        async def rotate(number: int) -> None:
            try:
                await (store if number % 2 else other).rotate(FIRST, refresh(bytes([100 + number]) * 32), None)
            except Conflict:
                return
            won.append(number)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(rotate, number)
        assert len(won) == 1
        kept = [await store.refresh_token(bytes([100 + number]) * 32) for number in range(20)]
        assert sum(one is not None for one in kept) == 1
