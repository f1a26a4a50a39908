"""What a tool server checks: a token counts once, for exactly the call that came, by a key of the gateway's."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer

from mcp_authz import limits
from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.published_keys import PublishedKeys
from mcp_authz.rules.context_token import HEADER, JWKS_PATH, META, sign_context
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.verify import CallContext, Mode, NotAuthorized, Verifier

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEY = PrivateKey.from_seed(b"\x01" * 32)
ISSUER = "https://authz.example.com"


def jwks(*keys: PrivateKey) -> dict[str, Any]:
    return {"keys": [{**key.public.jwk, "kid": key.public.thumbprint, "use": "sig"} for key in keys]}


def token(
    id: str = "x_1", *, tool: str = "refund", key: PrivateKey = KEY, issuer: str = ISSUER, **arguments: Any
) -> str:
    context = CallContext(
        id=id,
        call="c_1",
        subject="user:alice",
        actors=("agent:coder",),
        session="s_1",
        mode=Mode.DELEGATED,
        tool=tool,
        issued_at=NOW,
        expires_at=NOW + limits.CONTEXT_LIFETIME,
    )
    return sign_context(context, issuer=issuer, audience="billing", arguments=arguments, salt=bytes(16), key=key)


class Time:
    """A clock that stands still until a test moves it, as a date and as seconds."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def ticks(self) -> float:
        return self.now.timestamp()


def verifier(clock: Callable[[], datetime] = lambda: NOW, **more: Any) -> Verifier:
    return Verifier(ISSUER, audience="billing", keys=jwks(KEY), clock=clock, **more)


@contextmanager
def gateway(body: Callable[[], bytes | None]) -> Iterator[tuple[str, list[str]]]:
    """A web server that has `body` where keys are published, a redirect for None; and the paths it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            said = body()
            self.send_response(302 if said is None else 200)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(said or b"")))
            self.end_headers()
            self.wfile.write(said or b"")

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_the_token_may_come_in_meta_in_a_header_or_by_itself() -> None:
    v = verifier()
    assert (await v.check({META: token("1"), "other": 1}, tool="refund", arguments={})).actor == "agent:coder"
    assert (await v.check({HEADER.lower(): token("2")}, tool="refund", arguments=None)).subject == "user:alice"
    assert v.check_sync(token("3"), tool="refund", arguments={}).session == "s_1"


@pytest.mark.parametrize("carrier", [None, {}, {"other": "x"}, {META: 1}, {META: ""}, "", "a.b.c", "ü", {META: None}])
async def test_without_a_token_nobody_is_authorized(carrier: Any) -> None:
    with pytest.raises(NotAuthorized):
        await verifier().check(carrier, tool="refund", arguments={})


def test_a_token_counts_once_and_is_forgotten_when_it_could_not_count_any_more() -> None:
    clock = Time()
    v = verifier(clock, remember=2)
    v.check_sync(token("1"), tool="refund", arguments={})
    with pytest.raises(NotAuthorized, match="used before"):
        v.check_sync(token("1"), tool="refund", arguments={})
    v.check_sync(token("2"), tool="refund", arguments={})
    with pytest.raises(NotAuthorized, match="too many"):
        v.check_sync(token("3"), tool="refund", arguments={})
    clock.now += timedelta(seconds=89)
    for seen in ("1", "2"):
        with pytest.raises(NotAuthorized, match="used before"):
            v.check_sync(token(seen), tool="refund", arguments={})
    clock.now += timedelta(seconds=2)
    with pytest.raises(NotAuthorized, match="expired"):
        v.check_sync(token("1"), tool="refund", arguments={})


def test_a_refused_token_is_not_used_up() -> None:
    v = verifier()
    with pytest.raises(NotAuthorized, match="other arguments"):
        v.check_sync(token(amount=1), tool="refund", arguments={"amount": 2})
    assert v.check_sync(token(amount=1), tool="refund", arguments={"amount": 1})


def test_of_many_threads_that_show_one_token_one_is_believed() -> None:
    v, believed = verifier(), []
    start = threading.Barrier(16)

    def show() -> None:
        start.wait(10)
        try:
            believed.append(v.check_sync(token(), tool="refund", arguments={}))
        except NotAuthorized:
            return

    threads = [threading.Thread(target=show) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(believed) == 1


async def test_keys_are_fetched_once_and_kept() -> None:
    with gateway(lambda: json.dumps(jwks(KEY)).encode()) as (url, asked):
        v = Verifier(f"{url}/", audience="billing", clock=lambda: NOW)
        for id in ("1", "2"):
            assert await v.check(token(id, issuer=url), tool="refund", arguments={})
        assert v.check_sync(token("3", issuer=url), tool="refund", arguments={})
        assert asked == [JWKS_PATH]


async def test_unknown_key_ids_make_the_keys_be_fetched_again_once_a_minute_at_most() -> None:
    keys, clock = [KEY], Time()
    later = PrivateKey.from_seed(b"\x02" * 32)
    with gateway(lambda: json.dumps(jwks(*keys)).encode()) as (url, asked):
        published = PublishedKeys(url, clock.ticks)
        assert published.find(KEY.public.thumbprint) == KEY.public
        keys.append(later)
        for _ in range(3):
            with pytest.raises(SignatureRefused, match="`kid`"):
                published.find(later.public.thumbprint)
        assert len(asked) == 1
        clock.now += limits.KEYS_PAUSE
        assert published.find(later.public.thumbprint) == later.public
        assert len(asked) == 2


def test_a_key_that_is_not_published_any_more_ends_within_the_hour() -> None:
    keys, clock = [KEY], Time()
    with gateway(lambda: json.dumps(jwks(*keys)).encode()) as (url, _):
        published = PublishedKeys(url, clock.ticks)
        assert published.find(KEY.public.thumbprint)
        keys.clear()
        clock.now += limits.KEYS_KEPT
        assert published.known(KEY.public.thumbprint) is None
        with pytest.raises(SignatureRefused, match="`kid`"):
            published.find(KEY.public.thumbprint)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (None, "302"),
        (b"no json", "fetched"),
        (b"[]", "fetched"),
        (b'{"keys": {}}', "JWK Set"),
        (b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}', "kid"),
        (b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "AA"}]}', "32 bytes"),
        (b" " * (limits.KEYS_BYTES + 1), "longer"),
    ],
)
def test_what_is_no_key_set_is_not_believed_and_tried_again_soon(body: bytes | None, why: str) -> None:
    bodies, clock = [body], Time()
    with gateway(lambda: bodies[-1]) as (url, asked):
        published = PublishedKeys(url, clock.ticks)
        for _ in range(3):
            with pytest.raises(SignatureRefused, match=why):
                published.find(KEY.public.thumbprint)
        assert asked == [JWKS_PATH]
        bodies.append(json.dumps(jwks(KEY)).encode())
        clock.now += limits.KEYS_RETRY
        assert published.find(KEY.public.thumbprint) == KEY.public


def test_a_gateway_that_does_not_answer_is_named() -> None:
    v = Verifier("http://127.0.0.1:1", audience="billing")
    with pytest.raises(NotAuthorized, match=r"http://127.0.0.1:1/.*ConnectError"):
        v.check_sync(token(), tool="refund", arguments={})


@pytest.mark.parametrize("issuer", ["http://authz.example.com", "authz.example.com", "file:///etc/keys", ""])
def test_keys_come_by_https_or_from_this_machine(issuer: str) -> None:
    with pytest.raises(InputError, match="https"):
        Verifier(issuer, audience="billing")


def test_given_keys_have_to_be_keys() -> None:
    with pytest.raises(InputError):
        Verifier(ISSUER, audience="billing", keys={})
    with pytest.raises(KeyRefused):
        Verifier(ISSUER, audience="billing", keys={"keys": [{**KEY.to_jwk(), "kid": "1"}]})
    with pytest.raises(NotAuthorized, match="was given"):
        verifier().check_sync(token(key=PrivateKey.generate()), tool="refund", arguments={})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_of_the_sdk_finds_token_tool_and_arguments_in_its_context(mode: Any) -> None:
    v, server = verifier(), MCPServer("billing")
    seen: list[CallContext] = []

    @server.tool()
    async def refund(amount: float, ctx: Context, reason: str = "none") -> str:
        seen.append(await v.check_request(ctx))
        return reason

    @server.resource("bill://{number}")
    async def bill(number: str, ctx: Context) -> str:
        seen.append(await v.check_request(ctx))
        return number

    async with Client(server, mode=mode) as client:
        meta: Any = {META: token("1", amount=1)}
        assert not (await client.call_tool("refund", {"amount": 1}, meta=meta)).is_error
        assert (await client.call_tool("refund", {"amount": 1}, meta=meta)).is_error
        assert (await client.call_tool("refund", {"amount": 1})).is_error
        meta = {META: token("2", tool="resources/read", uri="bill://7")}
        assert await client.read_resource("bill://7", meta=meta)
    assert [context.tool for context in seen] == ["refund", "resources/read"]


def test_importing_it_loads_nothing_of_a_gateway() -> None:
    code = "import mcp_authz.verify, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {"starlette", "authlib", "cedarpy", "sqlite3", "sqlite_utils", "typer", "mcp", "aiohttp", "pydantic"}
    assert not ours & set(loaded)
    assert not any(name.startswith(("mcp_authz.store", "mcp_authz.protocol", "mcp_authz.oauth")) for name in loaded)
