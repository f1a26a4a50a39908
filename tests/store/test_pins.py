"""Pins in every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_authz.errors import Conflict, NotFound
from tests.store.conftest import Stores
from tests.store.world import event, pin

OTHER = b"\x02" * 32
WAITING = replace(pin(), changed={"name": "read", "description": "new"}, changed_digest=OTHER)


async def test_a_tool_is_pinned_when_it_is_first_seen_and_stays_so(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin("write"), pin("read")], event())
        await store.pin_first([pin("read", OTHER), pin("list")], event())
        assert await store.pins() == (pin("list"), pin("read"), pin("write"))


async def test_seeing_nothing_new_is_not_recorded(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin()], event())
        await store.pin_first([pin("read", OTHER)], event())
        assert (await store.head())[0] == 1


async def test_a_changed_definition_waits_beside_the_pinned_one(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin()], event())
        await store.quarantine(WAITING, event())
        assert await store.pins() == (WAITING,)
        await store.quarantine(WAITING, event())
        assert (await store.head())[0] == 2


async def test_only_a_pinned_tool_goes_into_quarantine(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(NotFound):
            await store.quarantine(WAITING, event())


async def test_quarantine_needs_a_definition_that_waits(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin()], event())
        with pytest.raises(Conflict):
            await store.quarantine(pin(), event())


async def test_a_server_that_lists_the_pinned_definition_again_is_released(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin()], event())
        await store.quarantine(WAITING, event())
        await store.release("files", "read", event())
        await store.release("files", "read", event())
        assert await store.pins() == (pin(),)
        assert (await store.head())[0] == 3


async def test_the_definition_that_was_looked_at_is_the_one_accepted(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin()], event())
        await store.quarantine(WAITING, event())
        with pytest.raises(Conflict):
            await store.accept("files", "read", b"\x03" * 32, event())
        await store.accept("files", "read", OTHER, event())
        assert await store.pins() == (replace(pin(), digest=OTHER, definition=WAITING.changed or {}),)


async def test_nothing_is_accepted_when_nothing_waits(stores: Stores) -> None:
    async with stores.open() as store:
        await store.pin_first([pin()], event())
        with pytest.raises(Conflict):
            await store.accept("files", "read", OTHER, event())
