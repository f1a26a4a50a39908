"""Row 45: a URL that somebody else chose never makes the gateway look at what is near it."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from mcp_authz import limits
from mcp_authz.clients import Clients
from mcp_authz.errors import FetchRefused, NotFound
from mcp_authz.fetching import Fetcher, system_trust
from mcp_authz.rules.keys import PrivateKey, Sealer
from mcp_authz.rules.public_address import is_public
from mcp_authz.rules.redirect_uri import SCHEMES
from mcp_authz.store.sqlite import SqliteStore
from tests.oauth.elsewhere import HERE, Elsewhere, elsewhere, plain
from tests.store.world import Time

KEY = PrivateKey.from_seed(bytes(32)).public
INSIDE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",  # noqa: S104 - to be refused
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fe80::1",
    "fd00::1",
    "ff02::1",
]


async def test_a_document_on_a_public_host_is_fetched_by_its_name(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host:
        url = host.declare(KEY)
        assert b"client_id" in await host.fetcher()(url)
        assert host.asked == [f"GET /coder HTTP/1.1 host: agents.example.com:{host.port}"]


@pytest.mark.parametrize("address", INSIDE)
async def test_nothing_is_asked_at_an_address_that_is_not_public(tmp_path: Path, address: str) -> None:
    async with elsewhere(tmp_path) as host:
        url = host.declare(KEY)
        with pytest.raises(FetchRefused, match="public internet"):
            await host.fetcher(address, may_reach=is_public)(url)
        assert host.connections == 0


async def test_a_host_with_one_public_address_and_one_inside_is_not_asked_at_either(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host:
        url = host.declare(KEY)
        for addresses in ((HERE, "10.0.0.1"), ("10.0.0.1", HERE)):
            with pytest.raises(FetchRefused, match="public internet"):
                await host.fetcher(*addresses)(url)
        assert host.connections == 0


async def test_the_address_that_was_judged_is_the_one_that_is_asked(tmp_path: Path) -> None:
    """A name whose address changes between two look-ups: there is one look-up."""
    async with elsewhere(tmp_path) as host:
        url, answers = host.declare(KEY), [[HERE], ["10.0.0.1"]]

        async def resolve(_: str, __: int) -> Sequence[str]:
            return answers.pop(0)

        assert await host.fetcher(resolve=resolve)(url)
        assert answers == [["10.0.0.1"]] and host.connections == 1


@pytest.mark.parametrize(
    "name",
    ["localhost", "localhost.", "127.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "[::1]", "[::ffff:7f00:1]", "0"],
)
async def test_an_address_in_any_spelling_is_not_even_looked_up(tmp_path: Path, name: str) -> None:
    async with elsewhere(tmp_path) as host:
        host.declare(KEY)
        with pytest.raises(FetchRefused):
            await host.fetcher()(host.url(name=name))
        assert host.looked_up == [] and host.connections == 0


@pytest.mark.parametrize("scheme", ["http", "file", "ftp", "unix"])
async def test_nothing_but_https_is_spoken(tmp_path: Path, scheme: str) -> None:
    async with elsewhere(tmp_path) as host:
        with pytest.raises(FetchRefused):
            await host.fetcher()(host.url().replace("https", scheme, 1))
        assert host.looked_up == [] and host.connections == 0


async def test_the_system_s_own_look_up_leads_to_no_address_inside() -> None:
    """What the gateway uses when nobody tells it otherwise."""
    with pytest.raises(FetchRefused):
        await Fetcher()("https://localhost.localdomain/coder")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(tmp_path: Path, status: str) -> None:
    async with elsewhere(tmp_path) as host:
        host.declare(KEY, path="/inside")
        host.answers["/coder"] = plain(b"{}", status=status, more=f"location: {host.url('/inside')}\r\n")
        with pytest.raises(FetchRefused, match="leads elsewhere"):
            await host.fetcher()(host.url())
        assert len(host.asked) == 1


async def test_a_proxy_of_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with elsewhere(tmp_path) as host:
        assert await host.fetcher()(host.declare(KEY))


async def test_a_host_without_a_certificate_for_its_name_is_not_asked(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host:
        host.declare(KEY)
        with pytest.raises(FetchRefused, match="cannot be reached"):
            await host.fetcher()(host.url(name="other.example.com"))
        with pytest.raises(FetchRefused, match="cannot be reached"):
            await host.fetcher(trust=ssl.create_default_context())(host.url())
        assert host.asked == []


async def test_a_document_that_drips_is_given_up_when_its_time_is_over(tmp_path: Path) -> None:
    async def drip(stream: anyio.abc.ByteStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n")
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.02)

    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = drip
        with anyio.fail_after(10), pytest.raises(FetchRefused, match="did not answer whole"):
            await host.fetcher(patience=timedelta(seconds=0.3))(host.url())
        assert host.fetcher().patience.total_seconds() == 5


async def test_a_name_that_nobody_answers_for_is_given_up_too(tmp_path: Path) -> None:
    async def resolve(_: str, __: int) -> Sequence[str]:
        await anyio.sleep_forever()
        raise AssertionError

    async with elsewhere(tmp_path) as host:
        with anyio.fail_after(10), pytest.raises(FetchRefused, match="did not answer"):
            await host.fetcher(resolve=resolve, patience=timedelta(seconds=0.1))(host.url())


@pytest.mark.parametrize("says_how_long", [True, False])
async def test_a_document_that_is_too_long_is_not_read_to_its_end(tmp_path: Path, says_how_long: bool) -> None:
    sent = 0

    async def endless(stream: anyio.abc.ByteStream) -> None:
        nonlocal sent
        length = f"content-length: {10**9}\r\n" if says_how_long else "connection: close\r\n"
        await stream.send(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{length}\r\n".encode())
        while sent < 10**9:
            await stream.send(b" " * 65536)
            sent += 65536

    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = endless
        with anyio.fail_after(10), pytest.raises(FetchRefused, match="longer than"):
            await host.fetcher()(host.url())
    assert sent < 32 * 1024 * 1024  # what buffers hold


async def test_headers_without_end_are_not_read(tmp_path: Path) -> None:
    async def endless(stream: anyio.abc.ByteStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send(b"x: " + b"y" * 8192 + b"\r\n")

    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = endless
        with anyio.fail_after(10), pytest.raises(FetchRefused, match="cannot be fetched"):
            await host.fetcher()(host.url())


async def test_what_is_compressed_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = plain(bomb, more="content-encoding: gzip\r\n")
        with pytest.raises(FetchRefused, match="compressed"):
            await host.fetcher()(host.url())
        assert len(bomb) < limits.METADATA_BYTES


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/xml", "image/svg+xml", "", "json"])
async def test_what_says_that_it_is_no_json_is_not_read(tmp_path: Path, kind: str) -> None:
    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = plain(b"{}", kind=kind)
        with pytest.raises(FetchRefused, match="content type"):
            await host.fetcher()(host.url())


@pytest.mark.parametrize("status", ["201 Created", "204 No Content", "401 Unauthorized", "404 Not Found", "500 Oops"])
async def test_only_an_answer_of_success_is_a_document(tmp_path: Path, status: str) -> None:
    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = plain(b"", status=status)
        with pytest.raises(FetchRefused, match="HTTP"):
            await host.fetcher()(host.url())


async def test_what_is_no_http_at_all_is_a_refusal(tmp_path: Path) -> None:
    async def garbage(stream: anyio.abc.ByteStream) -> None:
        await stream.send(b"220 mail.example.com ESMTP\r\n")

    async with elsewhere(tmp_path) as host:
        host.answers["/coder"] = garbage
        with pytest.raises(FetchRefused, match="cannot be fetched"):
            await host.fetcher()(host.url())


def test_what_the_system_trusts_is_read_once_and_not_at_each_fetch() -> None:
    assert system_trust() is system_trust()
    assert system_trust().verify_mode == ssl.CERT_REQUIRED and system_trust().check_hostname


@asynccontextmanager
async def clients_of(
    directory: Path, host: Elsewhere, *addresses: str, **more: Any
) -> AsyncIterator[tuple[Clients, SqliteStore, Time]]:
    """The clients of a gateway that reaches this host, at these addresses."""
    clock = Time()
    store = SqliteStore.open(directory / "store.db", sealer=Sealer(bytes(32)), clock=clock)
    try:
        yield Clients(store, clock, host.fetcher(*addresses, **more), schemes=SCHEMES, dynamic=False), store, clock
    finally:
        await store.aclose()


def publish(host: Elsewhere, path: str = "/client", **changes: Any) -> str:
    """The host has a document of a client that people could sign in to."""
    back = ["http://127.0.0.1/callback"]
    body = {"client_id": host.url(path), "client_name": "Cursor", "redirect_uris": back, **changes}
    host.answers[path] = plain(json.dumps(body).encode())
    return host.url(path)


@pytest.mark.parametrize("address", INSIDE)
async def test_a_client_id_does_not_make_the_gateway_ask_inside(tmp_path: Path, address: str) -> None:
    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host, address, may_reach=is_public) as (clients, *_):
        with pytest.raises(NotFound, match="public internet"):
            await clients.known(publish(host))
        assert host.connections == 0


@pytest.mark.parametrize(
    "client_id",
    [
        "https://localhost/client",
        "https://127.0.0.1/client",
        "https://[::1]/client",
        "https://2130706433/client",
        "https://user@agents.example.com/client",
        "https://agents.example.com/a/../client",
        "https://agents.example.com/client?x",
        "https://agents.example.com/client#x",
        "https://agents.example.com",
        "https://agents.example.com/",
        "https://AGENTS.example.com/client",
        "https://agents.example.com./client",
        "https://agents.example.com\\@127.0.0.1/client",
        "https://agents.example.com/cl\nient",
        "https://",
    ],
)
async def test_a_client_id_that_is_no_plain_url_is_not_even_looked_up(tmp_path: Path, client_id: str) -> None:
    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host) as (clients, *_):
        with pytest.raises(NotFound):
            await clients.known(client_id)
        assert host.looked_up == [] and host.connections == 0


async def test_the_keys_of_a_client_are_not_fetched_from_inside_either(tmp_path: Path) -> None:
    looked_up: list[str] = []

    async def resolve(name: str, _: int) -> Sequence[str]:
        looked_up.append(name)
        return ["169.254.169.254"] if name.startswith("metadata.") else [HERE]

    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host, resolve=resolve) as (clients, *_):
        url = publish(
            host, token_endpoint_auth_method="private_key_jwt", jwks_uri="https://metadata.example.com/latest"
        )
        with pytest.raises(NotFound, match="public internet"):
            await clients.known(url)
        assert looked_up == ["agents.example.com", "metadata.example.com"] and host.connections == 1


async def test_a_client_whose_name_moves_inside_after_it_is_known_is_not_followed_there(tmp_path: Path) -> None:
    addresses = [[HERE], ["10.0.0.1"]]

    async def resolve(_: str, __: int) -> Sequence[str]:
        return addresses.pop(0)

    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host, resolve=resolve) as (clients, _, clock):
        first = await clients.known(publish(host))
        clock.pass_(limits.METADATA_FRESH)
        assert await clients.known(first.id) == first and host.connections == 1  # until what was read is too old
        assert addresses == []


async def test_a_client_id_that_leads_elsewhere_is_no_client(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host) as (clients, *_):
        there = publish(host, "/there")
        host.answers["/client"] = plain(b"{}", status="302 Found", more=f"location: {there}\r\n")
        with pytest.raises(NotFound, match="leads elsewhere"):
            await clients.known(host.url("/client"))
        host.answers["/client"] = host.answers["/there"]  # nor is another client's document
        with pytest.raises(NotFound, match="says that it is"):
            await clients.known(host.url("/client"))
        assert len(host.asked) == 2


async def test_a_client_s_document_that_is_too_long_is_not_kept(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host) as (clients, *_):
        with pytest.raises(NotFound, match="longer than"):
            await clients.known(publish(host, padding="x" * limits.METADATA_BYTES))


async def test_slow_hosts_of_strangers_take_only_so_many_places_and_none_of_known_clients(tmp_path: Path) -> None:
    hanging = anyio.Event()

    async def hang(stream: anyio.abc.ByteStream) -> None:
        await hanging.wait()

    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host) as (clients, _, clock):
        known = await clients.keep(await clients.known(publish(host, "/known")))
        clock.pass_(limits.METADATA_FRESH)
        refused: list[str] = []

        async def ask(url: str) -> None:
            try:
                await clients.known(url)
            except NotFound as error:
                refused.append(str(error))

        async with anyio.create_task_group() as group:
            for number in range(limits.DOCUMENTS_AT_ONCE):
                host.answers[f"/{number}"] = hang
                group.start_soon(ask, host.url(f"/{number}"))
            with anyio.fail_after(4):
                while len(host.asked) < 1 + limits.DOCUMENTS_AT_ONCE:  # noqa: ASYNC110 - the host has no event for it
                    await anyio.sleep(0.01)
                await ask(publish(host, "/one-more"))
                assert len(refused) == 1 and "too many new clients" in refused[0]
                assert (await clients.known(known.id)).read_at == clock()
            hanging.set()
        assert len(refused) == 1 + limits.DOCUMENTS_AT_ONCE


async def test_many_urls_of_strangers_fill_neither_minute_nor_memory_nor_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOCUMENTS", 4)
    async with elsewhere(tmp_path) as host, clients_of(tmp_path, host) as (clients, store, clock):
        for number in range(limits.DOCUMENTS_PER_MINUTE):
            await clients.known(publish(host, f"/{number}"))
        with pytest.raises(NotFound, match="too many new clients"):
            await clients.known(publish(host, "/one-more"))
        assert host.connections == limits.DOCUMENTS_PER_MINUTE
        assert await store.clients() == () and await store.records(after=0) == ()
        assert (await clients.known(host.url(f"/{limits.DOCUMENTS_PER_MINUTE - 1}"))).name == "Cursor"  # remembered
        clock.pass_(timedelta(minutes=1))
        await clients.known(host.url("/0"))  # forgotten, and fetched again
        assert host.connections == limits.DOCUMENTS_PER_MINUTE + 1
