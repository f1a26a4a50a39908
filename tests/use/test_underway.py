"""What ends a call or a stream beside the revocation that everybody sees: late looks, time, a store that stumbles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HeldCall, HoldId
from mcp_authz.principals import Caller
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import Event
from mcp_authz.underway import Stands, Underway
from tests.oauth.house import OPERATOR, House, house
from tests.use.test_revocations import Forest

SOON = 10  # seconds, for what takes some milliseconds


async def nothing_is_approved(held: HeldCall, *, at: object = None) -> bool:
    raise AssertionError("nothing here rests on an approval")


@dataclass
class Desk:
    """What runs in this process, what of it has ended, and how often somebody was told."""

    underway: Underway
    group: TaskGroup
    ended: list[str] = field(default_factory=list)
    told: int = 0

    async def run(self, name: str, caller: Caller, approval: HoldId | None = None) -> None:
        with self.underway.while_standing(caller, None, approval):
            await anyio.sleep_forever()
        self.ended.append(name)

    async def listen(self, name: str, caller: Caller) -> None:
        with self.underway.while_listening(caller):
            await anyio.sleep_forever()
        self.ended.append(name)

    async def until(self, is_so: Callable[[], bool]) -> None:
        with anyio.fail_after(SOON):
            while not is_so():  # noqa: ASYNC110 - whoever runs has no event for this
                await anyio.sleep(0.005)


@asynccontextmanager
async def desk(
    h: House, stands: Stands = nothing_is_approved, *, store: Any = None, tell: Any = None
) -> AsyncIterator[Desk]:
    async with anyio.create_task_group() as group:
        here = Desk(Underway(store or h.store, h.keys.live, h.sessions.identify, stands, h.clock), group)

        async def told() -> None:
            here.told += 1
            if tell is not None:
                await tell()

        group.start_soon(here.underway.run, told)
        yield here
        group.cancel_scope.cancel()


async def revoked(h: House, kind: Any, name: str) -> None:
    await Revocation(h.store, h.clock).revoke(kind, name, reason="x", by=OPERATOR)


async def test_a_call_whose_approval_ended_before_it_began_ends_with_the_next_thing_that_is_written(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        forest = Forest(h)
        await forest.plant([])
        node = next(it for it in forest.nodes if it.by is not None)
        other = next(it for it in forest.nodes if it.by is not None and it.by != node.by)
        assert node.by is not None
        async with desk(h, forest.approvals.stands) as d:
            d.group.start_soon(d.run, "early", node.caller, node.approved)
            await d.until(lambda: d.underway.count == 1)
            await revoked(h, "key", forest.approvers[node.by].public.thumbprint)
            await d.until(lambda: d.ended == ["early"])  # and so this revocation is no news any more
            d.group.start_soon(d.run, "late", node.caller, node.approved)  # it was looked at before
            d.group.start_soon(d.run, "other", other.caller, other.approved)
            await d.until(lambda: d.underway.count == 2)
            await h.store.append(Event(kind="administration", at=h.clock(), fields={}))  # as its decision is
            await d.until(lambda: d.ended == ["early", "late"])
            await anyio.sleep(0.05)
            assert d.ended == ["early", "late"]


async def test_what_ran_out_ends_a_stream_and_not_the_call_by_the_same_token_that_began_in_time(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        planner, coder, *_ = await h.family()
        caller = await h.caller(await h.token(planner))
        async with desk(h) as d:
            d.group.start_soon(d.listen, "stream", caller)
            await d.until(lambda: d.underway.count == 1)
            d.group.start_soon(d.run, "call", caller)
            await d.until(lambda: d.underway.count == 2)
            h.clock.advance(days=2)
            await revoked(h, "agent", coder.name)  # something else, and so all that runs is looked at
            await d.until(lambda: bool(d.ended))
            await anyio.sleep(0.05)
            assert d.ended == ["stream"]


@pytest.mark.parametrize("what", ["session", "link"])
async def test_a_stream_ends_with_the_time_of_its_session_and_link_whatever_its_token_says(
    tmp_path: Path, what: str
) -> None:
    async with house(tmp_path) as h:
        planner, *_ = await h.family()
        caller = await h.caller(await h.token(planner))
        session, chain = caller.session, caller.chain
        assert session is not None and chain is not None
        soon = h.clock() + timedelta(milliseconds=20)
        if what == "session":
            caller = replace(caller, session=replace(session, expires_at=soon))
        else:
            *above, leaf = chain.links
            caller = replace(caller, chain=replace(chain, links=(*above, replace(leaf, expires_at=soon))))
        async with desk(h) as d:
            d.group.start_soon(d.listen, "stream", caller)
            await d.until(lambda: d.ended == ["stream"])


class Stumbling:
    """A store that cannot be read once, just when something was revoked."""

    def __init__(self, store: Any) -> None:
        self.store, self.fails = store, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def endings(self) -> int:
        if self.fails:
            self.fails = False
            raise StoreError("the store cannot be read")
        return int(await self.store.endings())


async def test_a_revocation_that_could_not_be_read_is_read_again_though_nothing_more_is_written(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, session, _ = await h.family()
        caller, store = await h.caller(await h.token(planner)), Stumbling(h.store)
        async with desk(h, store=store) as d:
            d.group.start_soon(d.run, "call", caller)
            await d.until(lambda: d.underway.count == 1)
            await anyio.sleep(0.05)  # it waits for something to change
            store.fails = True
            await revoked(h, "session", session.id)
            await d.until(lambda: d.ended == ["call"])
            assert not store.fails


async def test_whoever_never_finishes_hearing_of_a_revocation_is_told_of_the_next_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NOTICE_TIMEOUT", timedelta(milliseconds=20))
    monkeypatch.setattr(limits, "LISTING_PAUSE", timedelta(milliseconds=1))
    async with house(tmp_path) as h:
        planner, coder, session, _ = await h.family()
        caller = await h.caller(await h.token(planner))
        async with desk(h, tell=anyio.sleep_forever) as d:
            d.group.start_soon(d.run, "call", caller)
            await d.until(lambda: d.underway.count == 1)
            await revoked(h, "agent", coder.name)
            await d.until(lambda: d.told == 1)
            await revoked(h, "session", session.id)
            await d.until(lambda: d.told == 2 and d.ended == ["call"])
