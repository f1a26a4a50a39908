"""OAuth clients, in every store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcp_authz.authorization import RegisteredClient
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.principals import Agent, AgentName, ClientId, Grant, GrantId
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Store
from tests.store.conftest import Stores
from tests.store.world import ALICE, HOUR, START, event, person


def client(id_: str = "client_1", handle: str = "cursor", **more: Any) -> RegisteredClient:
    given = {
        "name": "Cursor ü",
        "kind": "registered",
        "redirect_uris": ("http://127.0.0.1/cb", "cursor://host/cb"),
        "registered_at": START,
        **more,
    }
    return RegisteredClient(id=ClientId(id_), handle=handle, **given)


async def agreed(store: Store, to: RegisteredClient) -> None:
    """Alice lets the client act for her."""
    await store.add_person(person(), event("enrolment"))
    name = AgentName(f"{to.handle}@{ALICE}")
    scope = frozenset({Scope("files:read")})
    given = Grant(
        id=GrantId("g_1"),
        subject=ALICE,
        agent=name,
        scope=scope,
        tools=None,
        granted_at=START,
        expires_at=START + HOUR,
        client=to.id,
    )
    await store.authorize(Agent(name=name, owner=ALICE, ceiling=scope, client=to.id), given, None, event("grant"))


async def test_a_client_is_read_as_it_was_added(stores: Stores) -> None:
    keyed = client(
        method="private_key_jwt",
        jwks={"keys": [{"kty": "OKP", "x": "ü"}]},
        kind="document",
        read_at=START + HOUR,
    )
    secret = client("client_2", "chat", method="client_secret_basic", secret=b"\x01" * 32)
    async with stores.open() as store:
        await store.add_client(keyed, event("enrolment"))
        await store.add_client(secret, event("enrolment"))
    async with stores.open() as store:
        assert await store.client(keyed.id) == keyed and await store.client(secret.id) == secret
        assert await store.clients() == (secret, keyed)  # by handle
        assert await store.client(ClientId("client_3")) is None


async def test_an_id_and_a_handle_belong_to_one_client(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_client(client(), event("enrolment"))
        for other in (client(handle="other"), client("client_2")):
            with pytest.raises(Conflict):
                await store.add_client(other, event("enrolment"))
        assert len(await store.clients()) == 1 and len(await store.records(after=0)) == 1


async def test_there_are_at_most_so_many_of_a_kind(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_client(client("a", "a", kind="dynamic"), event("enrolment"), at_most=1)
        with pytest.raises(Conflict, match="no room"):
            await store.add_client(client("b", "b", kind="dynamic"), event("enrolment"), at_most=1)
        await store.add_client(client("c", "c"), event("enrolment"), at_most=1)


async def test_what_a_document_says_now_takes_the_place_of_what_it_said(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_client(client(kind="document"), event("enrolment"))
        changed = replace(client(kind="document"), name="Other", redirect_uris=("https://a.example/",), read_at=START)
        await store.update_client(changed, None)
        assert await store.client(changed.id) == changed and len(await store.records(after=0)) == 1
        await store.update_client(replace(changed, name="Third"), event("enrolment"))
        assert len(await store.records(after=0)) == 2


async def test_handle_kind_and_status_do_not_change_with_a_document(stores: Stores) -> None:
    async with stores.open() as store:
        known = client(kind="document")
        await store.add_client(known, event("enrolment"))
        for change in (
            replace(known, handle="other"),
            replace(known, kind="registered"),
            replace(known, status="revoked"),
        ):
            with pytest.raises(Conflict):
                await store.update_client(change, None)
        with pytest.raises(NotFound):
            await store.update_client(client("client_2"), None)
        assert await store.client(known.id) == known


async def test_a_revoked_client_does_not_come_back_with_its_document(stores: Stores) -> None:
    async with stores.open() as store:
        known = client(kind="document")
        await store.add_client(known, event("enrolment"))
        await store.revoke("client", known.id, event("revocation"))
        with pytest.raises(Conflict, match="revoked"):
            await store.update_client(known, None)
        found = await store.client(known.id)
        assert found is not None and found.status == "revoked"


async def test_clients_that_nobody_agreed_to_are_forgotten_after_a_while(stores: Stores) -> None:
    used, unused, later = (client(name, name, kind="dynamic") for name in ("used", "unused", "later"))
    async with stores.open() as store:
        await store.add_client(used, event("enrolment"))
        await store.add_client(unused, event("enrolment"))
        await store.add_client(replace(later, registered_at=START + 2 * HOUR), event("enrolment"))
        await store.add_client(client("operator", "operator"), event("enrolment"))
        await agreed(store, used)
        assert await store.remove_unused_clients("dynamic", START + HOUR) == 1
        assert [one.id for one in await store.clients()] == ["later", "operator", "used"]
        (told,) = [it.event.fields for it in await store.records(kind="administration")]
        assert told == {
            "summary": "1 dynamic client forgotten: nobody ever agreed to them",
            "by": "gateway",
            "count": 1,
        }
        assert await store.remove_unused_clients("dynamic", START + HOUR) == 0
        assert len(await store.records(kind="administration")) == 1, "of nothing there is no record"
