"""The stream of an open page: it tells of what concerns this person, to few tabs, for as long as they are signed in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from mcp_authz import limits
from tests.web.authenticator import Visit, visit, visiting
from tests.world import World, world

SOON = 10.0  # seconds; every wait here is bounded by it
DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
ACCEPT = {"accept": "text/event-stream"}


@asynccontextmanager
async def stream(them: Visit) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[str]]]:
    async with them.http.stream("GET", f"{them.origin}/events", headers=ACCEPT) as response:
        yield response, response.aiter_lines()


async def event(lines: AsyncIterator[str]) -> str:
    """The name of the next event."""
    async with asyncio.timeout(SOON):
        async for line in lines:
            if line.startswith("event: "):
                return line.removeprefix("event: ")
    return "the end"


async def began(lines: AsyncIterator[str]) -> None:
    """The stream has begun."""
    async with asyncio.timeout(SOON):
        assert await anext(lines) == "retry: 1000"


async def test_a_person_is_told_of_their_own_calls_only(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("bob")
        coder = await w.ready("coder", "deploy:production")
        async with (
            visiting(w, "alice") as alice,
            visiting(w, "bob") as bob,
            stream(alice) as (_, hers),
            stream(bob) as (_, his),
        ):
            await began(hers)
            await began(his)
            call = await w.call(coder, "acme__deploy", **DEPLOY)
            assert await event(hers) == "changed"
            await w.answer(call.hold, by="alice")
            assert await event(hers) == "changed"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await event(his)


async def test_the_stream_ends_with_the_sign_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        async with visiting(w, "alice") as alice, stream(alice) as (_, lines):
            await began(lines)
            await alice.post("/sign-out", {})
            assert await event(lines) == "signed-out"
            assert await event(lines) == "the end"


async def test_a_sign_in_has_few_streams_at_once_and_gets_back_what_it_closes(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        async with visiting(w, "alice") as alice:
            async with AsyncExitStack() as tabs:
                kept = [await tabs.enter_async_context(stream(alice)) for _ in range(limits.STREAMS_PER_SIGN_IN)]
                for _, lines in kept:
                    await began(lines)
                async with stream(alice) as (response, _):
                    assert response.status_code == 204, "by which a browser knows not to try again"
            assert await again(alice) == 200


async def again(alice: Visit) -> int:
    """The status of a further stream; the gateway hears a moment later that others were closed."""
    for _ in range(100):
        async with stream(alice) as (response, _lines):
            if response.status_code != 204:
                return response.status_code
        await asyncio.sleep(0.05)
    return 204


async def test_no_other_page_listens_and_nobody_without_a_sign_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        async with visiting(w, "alice") as alice, visit(w) as stranger:
            for site in ("same-site", "cross-site", "none"):
                assert (await alice.get("/events", sec_fetch_site=site)).status_code == 403
            assert (await stranger.get("/events")).status_code == 401


async def test_an_open_page_does_not_hold_up_the_end_of_the_gateway(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with httpx2.AsyncClient(timeout=SOON) as http:
        async with world(tmp_path, servers={}) as w:
            alice = await registered(w, http)
            request = http.build_request("GET", f"{alice.origin}/events", headers=ACCEPT)
            response = await http.send(request, stream=True)
            lines = response.aiter_lines()
            await began(lines)
        with pytest.raises(httpx2.RemoteProtocolError):
            await event(lines)
        assert "graceful shutdown exceeded" not in capfd.readouterr().err


async def registered(w: World, http: httpx2.AsyncClient) -> Visit:
    await w.person("alice")
    alice = Visit(w, http)
    await alice.register(await alice.invite("alice"))
    return alice
