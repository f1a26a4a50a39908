"""One-time codes and declared keys, in every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mcp_authz.errors import Conflict
from mcp_authz.principals import AgentName, Key, Thumbprint
from mcp_authz.store.ports import Enrolment, Store
from tests.store.conftest import Stores
from tests.store.world import ALICE, HOUR, MINUTE, START, agent, event, key, person

CODE = b"\x01" * 32
NEW = AgentName("newcomer")
HOLDER = f"agent:{NEW}"


def enrolment(digest: bytes = CODE, of: AgentName = NEW) -> Enrolment:
    return Enrolment(digest=digest, agent=of, made_at=START, expires_at=START + HOUR)


def numbered(number: int, holder: str = HOLDER) -> Key:
    return Key(thumbprint=Thumbprint(f"key-{number}"), holder=holder, raw=bytes([number]) * 32, added_at=START)


async def announce(store: Store) -> None:
    await store.add_person(person(), event("enrolment"))
    await store.add_agent(agent(NEW), None, event("enrolment"))


async def declare(store: Store, *keys: Key, overlap: timedelta = 10 * MINUTE) -> None:
    await store.declare_keys(HOLDER, keys, event("enrolment"), START + overlap)


async def held(store: Store) -> dict[str, bool]:
    """The agent's keys, and whether each is a current one."""
    return {key.thumbprint: key.retires_at is None for key in await store.keys_of(HOLDER)}


async def test_a_code_gives_the_agent_its_key_once(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_enrolment(enrolment(), event("enrolment"))
        assert await store.enrolment(CODE) == enrolment()
        await store.enrol(CODE, numbered(1), event("enrolment"))
        assert await store.keys_of(HOLDER) == (numbered(1),)
        used = await store.enrolment(CODE)
        assert used is not None and used.used_at is not None
        with pytest.raises(Conflict):
            await store.enrol(CODE, numbered(2), event("enrolment"))
        assert len(await store.records(kind="enrolment")) == 4


async def test_a_newer_code_ends_those_before_it(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_enrolment(enrolment(), event("enrolment"))
        await store.add_enrolment(enrolment(b"\x02" * 32), event("enrolment"))
        with pytest.raises(Conflict):
            await store.enrol(CODE, numbered(1), event("enrolment"))
        await store.enrol(b"\x02" * 32, numbered(1), event("enrolment"))


async def test_a_code_that_is_unknown_expired_or_another_agents_gives_no_key(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_agent(agent(AgentName("other")), None, event("enrolment"))
        await store.add_enrolment(enrolment(), event("enrolment"))
        for digest, given in (
            (b"\x09" * 32, numbered(1)),
            (CODE, numbered(1, "agent:other")),
            (CODE, numbered(1, "user:alice")),
        ):
            with pytest.raises(Conflict):
                await store.enrol(digest, given, event("enrolment"))
        stores.clock.now += HOUR
        with pytest.raises(Conflict):
            await store.enrol(CODE, numbered(1), event("enrolment"))
        assert await store.keys_of(HOLDER) == await store.keys_of("agent:other") == ()


async def test_a_key_that_somebody_has_uses_no_code_up(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_key(key("user:alice"), event("enrolment"), retire_others_at=None)
        await store.add_enrolment(enrolment(), event("enrolment"))
        with pytest.raises(Conflict):
            await store.enrol(CODE, replace(key("user:alice"), holder=HOLDER), event("enrolment"))
        await store.enrol(CODE, numbered(1), event("enrolment"))


async def test_a_code_is_made_and_taken_only_while_the_agent_is_active_and_has_no_key(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_enrolment(enrolment(), event("enrolment"))
        await store.add_key(numbered(1), event("enrolment"), retire_others_at=None)
        with pytest.raises(Conflict):
            await store.enrol(CODE, numbered(2), event("enrolment"))
        for name in (NEW, AgentName("nobody")):
            with pytest.raises(Conflict):
                await store.add_enrolment(enrolment(b"\x03" * 32, name), event("enrolment"))


async def test_the_declared_keys_are_the_current_ones_and_others_retire(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await declare(store, numbered(1))
        await declare(store, numbered(1), numbered(2))
        assert await held(store) == {"key-1": True, "key-2": True}
        await declare(store, numbered(2))
        assert await held(store) == {"key-1": False, "key-2": True}
        (retired, _) = await store.keys_of(HOLDER)
        assert retired.retires_at == START + 10 * MINUTE


async def test_declaring_what_is_so_already_is_no_event(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await declare(store, numbered(1))
        records = await store.records()
        await declare(store, numbered(1))
        assert await store.records() == records


async def test_a_declaration_is_taken_whole_or_not_at_all(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await declare(store, numbered(1))
        await store.add_key(key("user:alice"), event("enrolment"), retire_others_at=None)
        before, records = await store.keys_of(HOLDER), await store.records()
        somebodys = replace(key("user:alice"), holder=HOLDER)
        for keys in ((somebodys,), (numbered(2), somebodys), (numbered(2), numbered(3))):
            with pytest.raises(Conflict, match=r"somebody already|3 active"):
                await declare(store, *keys)
        assert await store.keys_of(HOLDER) == before and await store.records() == records


async def test_a_declared_key_that_has_retired_does_not_come_back(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await declare(store, numbered(1))
        await declare(store, numbered(2))
        await declare(store, numbered(1))
        assert await held(store) == {"key-1": True, "key-2": False}
        stores.clock.now += 10 * MINUTE
        with pytest.raises(Conflict):
            await declare(store, numbered(2))


async def test_declaring_keys_brings_neither_a_revoked_key_nor_a_revoked_agent_back(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await declare(store, numbered(1), numbered(2))
        await store.revoke("key", "key-1", event("revocation"))
        await declare(store, numbered(1), numbered(2))
        assert [key.status for key in await store.keys_of(HOLDER)] == ["revoked", "active"]
        await store.revoke("agent", NEW, event("revocation"))
        with pytest.raises(Conflict):
            await declare(store, numbered(2), numbered(3))


async def test_an_agent_is_found_by_the_url_of_its_document(stores: Stores) -> None:
    url = "https://agents.example.com/newcomer"
    async with stores.open() as store:
        await store.add_person(person(), event("enrolment"))
        assert await store.agent_at(url) is None
        for name in ("gone", "newcomer"):
            await store.add_agent(replace(agent(AgentName(name)), metadata_url=url), None, event("enrolment"))
            if name == "gone":
                await store.revoke("agent", name, event("revocation"))
        found = await store.agent_at(url)
        assert found is not None and (found.name, found.owner) == ("newcomer", ALICE)
        assert await store.agent_at(url + "/") is None


async def declare_for(store: Store, holder: str, *keys: Key) -> None:
    declared = [replace(one, holder=holder, proved=False) for one in keys]
    await store.declare_keys(holder, declared, event("enrolment"), START + 10 * MINUTE)


async def test_a_key_that_is_only_declared_is_whose_document_was_read_last(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_agent(agent(AgentName("other")), None, event("enrolment"))
        await declare_for(store, "agent:other", numbered(1), numbered(2))
        await declare_for(store, HOLDER, numbered(1))
        assert await store.keys_of(HOLDER) == (replace(numbered(1), proved=False),)
        assert [one.thumbprint for one in await store.keys_of("agent:other")] == ["key-2"]


async def test_a_key_that_was_proved_is_declared_by_nobody_else(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_agent(agent(AgentName("other")), None, event("enrolment"))
        await declare_for(store, HOLDER, numbered(1))
        assert not await store.prove_key(Thumbprint("key-1"), "agent:other")
        assert await store.prove_key(Thumbprint("key-1"), HOLDER)
        with pytest.raises(Conflict, match="somebody already"):
            await declare_for(store, "agent:other", numbered(1))
        await declare_for(store, HOLDER, numbered(1))
        assert await store.keys_of(HOLDER) == (numbered(1),)


async def test_a_declared_key_that_was_revoked_is_nobodys_any_more(stores: Stores) -> None:
    async with stores.open() as store:
        await announce(store)
        await store.add_agent(agent(AgentName("other")), None, event("enrolment"))
        await declare_for(store, HOLDER, numbered(1))
        await store.revoke("key", "key-1", event("revocation"))
        assert not await store.prove_key(Thumbprint("key-1"), HOLDER)
        with pytest.raises(Conflict, match="somebody already"):
            await declare_for(store, "agent:other", numbered(1))
