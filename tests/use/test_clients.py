"""Clients: how the gateway knows them, and how it comes to know another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.authorization import RegisteredClient
from mcp_authz.clients import CLI, Clients
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.rules.client_document import RedirectRefused
from mcp_authz.rules.keys import PrivateKey, Sealer
from mcp_authz.rules.redirect_uri import SCHEMES
from mcp_authz.store.sqlite import SqliteStore
from tests.oauth.elsewhere import Elsewhere, elsewhere, plain
from tests.store.world import MINUTE, Time, event

KEY = PrivateKey.from_seed(bytes(32)).public
BACK = ("http://127.0.0.1/callback",)


@dataclass
class Place:
    """A store, a clock, a host elsewhere, and the clients that are known."""

    store: SqliteStore
    clock: Time
    host: Elsewhere
    clients: Clients

    def publish(self, path: str = "/client", **changes: Any) -> str:
        """The host has a client's document from now on."""
        body = {"client_id": self.host.url(path), "client_name": "Cursor", "redirect_uris": list(BACK), **changes}
        self.host.answers[path] = plain(json.dumps(body).encode())
        return self.host.url(path)

    def away(self, path: str = "/client") -> None:
        self.host.answers[path] = plain(b"", status="503 Busy")

    async def kept(self, **changes: Any) -> RegisteredClient:
        """A client with a document that somebody agreed to."""
        return await self.clients.keep(await self.clients.known(self.publish(**changes)))

    async def summaries(self) -> list[str]:
        return [record.event.fields["summary"] for record in await self.store.records(after=0)]


@asynccontextmanager
async def at_work(directory: Path, *, dynamic: bool = False) -> AsyncIterator[Place]:
    clock = Time()
    store = SqliteStore.open(directory / "store.db", sealer=Sealer(bytes(32)), clock=clock)
    try:
        async with elsewhere(directory) as host:
            clients = Clients(store, clock, host.fetcher(), schemes=SCHEMES, dynamic=dynamic)
            yield Place(store=store, clock=clock, host=host, clients=clients)
    finally:
        await store.aclose()


async def test_the_command_line_is_known_everywhere_and_kept_once_somebody_agrees(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        assert await place.clients.known("mcp-authz-cli") == CLI and await place.store.clients() == ()
        assert await place.clients.keep(CLI) == CLI
        assert await place.clients.keep(CLI) == CLI and await place.store.clients() == (CLI,)
        assert place.host.asked == []


@pytest.mark.parametrize("unknown", ["", "client_1", "mcp-authz-CLI", "http://app.example.com/client", "x" * 600])
async def test_an_id_that_nobody_has_is_nobody_s(tmp_path: Path, unknown: str) -> None:
    async with at_work(tmp_path) as place:
        with pytest.raises(NotFound, match="no client"):
            await place.clients.known(unknown)


async def test_a_client_with_a_document_is_known_by_it_and_not_stored_before_somebody_agrees(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        url = place.publish()
        client = await place.clients.known(url)
        assert (client.name, client.handle, client.kind, client.method) == ("Cursor", "cursor", "document", "none")
        assert client.redirect_uris == BACK and await place.store.clients() == ()
        with pytest.raises(NotFound, match="nobody agreed"):
            await place.clients.kept(url)
        assert await place.clients.keep(client) == client == await place.store.client(client.id)
        assert await place.clients.kept(url) == client and len(place.host.asked) == 1


async def test_a_document_is_read_again_after_an_hour_and_its_change_is_recorded(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        first = await place.kept()
        place.publish(redirect_uris=["http://localhost/other"])
        place.clock.pass_(limits.METADATA_FRESH - MINUTE)
        assert await place.clients.known(first.id) == first
        place.clock.pass_(MINUTE)
        changed = await place.clients.known(first.id)
        assert changed.redirect_uris == ("http://localhost/other",) and changed.handle == first.handle
        assert changed.registered_at == place.clock(), "what was agreed to before was agreed to of another"
        assert await place.store.client(first.id) == changed and len(place.host.asked) == 2
        assert "changed" in (await place.summaries())[-1]
        place.clock.pass_(limits.METADATA_FRESH)
        again = await place.clients.known(first.id)
        assert again == replace(changed, read_at=place.clock()) and len(await place.summaries()) == 2


async def test_a_client_stays_known_for_a_day_while_its_host_is_away(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        first = await place.kept()
        place.away()
        place.clock.pass_(limits.METADATA_KEPT - MINUTE)
        assert await place.clients.known(first.id) == first and len(place.host.asked) == 2
        assert await place.clients.known(first.id) == first and len(place.host.asked) == 2  # not tried at each use
        place.clock.pass_(MINUTE)
        with pytest.raises(NotFound, match="cannot be read"):
            await place.clients.known(first.id)
        assert await place.clients.kept(first.id) == first  # what it has already can be renewed
        place.publish()
        place.clock.pass_(limits.METADATA_PAUSE)
        assert (await place.clients.known(first.id)).read_at == place.clock()


async def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        place.away()
        with pytest.raises(NotFound, match="HTTP 503"):
            await place.clients.known(place.host.url("/client"))
        assert (await place.clients.known(place.publish())).name == "Cursor"


async def test_a_document_that_comes_to_be_no_client_s_leaves_the_client_as_it_was(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        first = await place.kept()
        place.publish(redirect_uris=["javascript:alert(1)"])
        place.clock.pass_(limits.METADATA_FRESH)
        assert await place.clients.known(first.id) == first


async def test_keys_at_another_url_are_read_with_the_document(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        place.host.answers["/jwks"] = plain(json.dumps({"keys": [{**KEY.jwk, "kid": "1"}]}).encode())
        url = place.publish(token_endpoint_auth_method="private_key_jwt", jwks_uri=place.host.url("/jwks"))
        client = await place.clients.known(url)
        assert client.method == "private_key_jwt" and client.jwks == {"keys": [{**KEY.jwk, "kid": "1"}]}


async def test_a_client_with_a_key_is_nobody_once_that_could_not_be_read_for_a_day(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        first = await place.kept(token_endpoint_auth_method="private_key_jwt", jwks={"keys": [KEY.jwk]})
        place.away()
        place.clock.pass_(limits.METADATA_KEPT)
        with pytest.raises(NotFound, match="cannot be read"):
            await place.clients.kept(first.id)


async def test_a_client_that_was_stopped_is_not_known_and_does_not_come_back(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        client = await place.kept()
        await place.store.revoke("client", client.id, event("revocation"))
        with pytest.raises(NotFound, match="stopped by an operator"):
            await place.clients.known(client.id)
        with pytest.raises(NotFound, match="stopped by an operator"):
            await place.clients.kept(client.id)
        with pytest.raises(Conflict, match="stopped by an operator"):
            await place.clients.keep(client)
        place.clock.pass_(limits.METADATA_KEPT)
        with pytest.raises(NotFound, match="stopped by an operator"):
            await place.clients.known(client.id)


async def test_clients_of_one_name_have_different_handles_and_the_page_shows_which(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        first = await place.kept()
        second = await place.clients.known(place.publish("/other"))
        assert (first.handle, second.handle) == ("cursor", "cursor-2")
        meanwhile = (await place.clients.register("cursor 2", redirect_uris=BACK, by="user:operator")).client
        kept = await place.clients.keep(second)
        assert meanwhile.handle == "cursor-2" and kept.handle == "cursor-3"
        assert (await place.clients.known(kept.id)).handle == "cursor-3"


async def test_many_who_ask_at_once_cause_one_fetch(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        url = place.publish()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(place.clients.known, url)
        assert len(place.host.asked) == 1


async def test_an_operator_s_client_has_a_secret_that_is_shown_once(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        new = await place.clients.register(
            "Team chat", redirect_uris=["https://chat.example.com/cb"], method="client_secret_basic", by="user:operator"
        )
        assert new.secret is not None and len(new.secret) == 43 and new.secret not in repr(new)
        stored = await place.store.client(new.client.id)
        assert stored is not None and stored.secret == hashlib.sha256(new.secret.encode()).digest()
        assert new.secret.encode() not in (tmp_path / "store.db").read_bytes()
        assert await place.clients.known(new.client.id) == stored and not stored.id.startswith("https://")


async def test_an_operator_s_client_may_have_keys(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        new = await place.clients.register(
            "Robot", redirect_uris=BACK, method="private_key_jwt", jwks={"keys": [KEY.jwk]}, by="user:operator"
        )
        assert new.secret is None and new.client.jwks == {"keys": [KEY.jwk]}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "Cur\u200bsor"},
        {"name": "a" * 65},
        {"redirect_uris": ()},
        {"redirect_uris": ("http://example.com/cb",)},
        {"method": "private_key_jwt"},
        {"jwks": {"keys": [KEY.jwk]}},
        {"method": "private_key_jwt", "jwks": {"keys": []}},
    ],
)
async def test_what_is_no_client_is_not_registered(tmp_path: Path, changes: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"name": "Cursor", "redirect_uris": BACK, "by": "user:operator", **changes}
    async with at_work(tmp_path) as place:
        with pytest.raises(InputError):
            await place.clients.register(asked.pop("name"), **asked)
        assert await place.store.clients() == ()


async def test_clients_register_themselves_only_where_that_is_switched_on(tmp_path: Path) -> None:
    async with at_work(tmp_path) as place:
        with pytest.raises(Conflict, match="do not register themselves"):
            await place.clients.register_dynamic({"redirect_uris": list(BACK)})


async def test_clients_that_registered_themselves_are_bounded_and_forgotten_when_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DYNAMIC_CLIENTS", 2)
    said = {"redirect_uris": list(BACK), "client_name": "Claude Code", "token_endpoint_auth_method": "none"}
    async with at_work(tmp_path, dynamic=True) as place:
        first, second = [(await place.clients.register_dynamic(said)).client for _ in range(2)]
        assert (first.handle, second.handle, first.kind) == ("claude-code", "claude-code-2", "dynamic")
        with pytest.raises(Conflict, match="no room"):
            await place.clients.register_dynamic(said)
        with pytest.raises(RedirectRefused):
            await place.clients.register_dynamic({**said, "redirect_uris": ["http://example.com/"]})
        place.clock.pass_(limits.DYNAMIC_UNUSED + timedelta(seconds=1))
        third = (await place.clients.register_dynamic(said)).client
        assert await place.store.clients() == (third,)
        with pytest.raises(NotFound):
            await place.clients.known(first.id)
