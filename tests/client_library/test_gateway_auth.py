"""A stock client with `GatewayAuth` is a proved agent: bound to its key, each call signed, renewed by itself."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from socket import AddressFamily
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from anyio.abc import SocketAttribute, SocketStream
from mcp.shared.exceptions import MCPError

from mcp_authz.client import AgentIdentity, NoAnswer, SignInRefused
from mcp_authz.revocation import Revocation
from mcp_authz.rules.call_proof import INVOCATION
from tests.client_library.elsewhere import elsewhere
from tests.client_library.parties import LIST, READ, SECRET, demanding, identity, sign_ins, stock_client
from tests.world import LEGACY, MODERN, OPERATOR, World, called, modern_call, world

ME: dict[str, Any] = modern_call("", {})["params"]["_meta"]
LISTING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ME}}
CALL = modern_call(LIST, READ)
PASSWORD = {"environment": "production", "name": "db-password"}
HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": MODERN,
    "mcp-method": "tools/list",
}
CALLING = {**HEADERS, "mcp-method": "tools/call", "mcp-name": LIST}


async def coder_of(w: World, scope: str = "pr:read:acme:api") -> AgentIdentity:
    """An agent with a session for alice."""
    return identity(await w.ready("coder", scope))


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_stock_client_lists_and_calls_as_the_agent(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)
        async with stock_client(w, auth, mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            done = await called(client, LIST, READ)
        assert LIST in tools
        assert not done.is_error, done.text
        assert auth.subject == "user:alice" and auth.session and auth.link
        assert {d["proof"] for d in await w.decisions()} == {"signed"}
        assert await sign_ins(w) == 1


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_tool_that_demands_a_proof_gets_it(tmp_path: Path, mode: str) -> None:
    servers = demanding(tmp_path, list_pull_requests="dpop", read_secret="signed")
    async with world(tmp_path, servers=servers) as w:
        auth = (await coder_of(w, "pr:read:acme:api secret:read")).auth(w.url, clock=w.clock)
        async with stock_client(w, auth, mode) as client:
            listed = await called(client, LIST, READ)
            secret = await called(client, SECRET, PASSWORD)
        assert not listed.is_error, listed.text
        assert not secret.is_error, secret.text


async def test_without_signed_calls_a_request_has_the_proof_of_its_key_only(tmp_path: Path) -> None:
    async with world(tmp_path, servers=demanding(tmp_path, read_secret="signed")) as w:
        coder = await coder_of(w, "pr:read:acme:api secret:read")
        auth = coder.auth(w.url, clock=w.clock, sign_calls=False)
        async with stock_client(w, auth) as client:
            listed = await called(client, LIST, READ)
            refused = await called(client, SECRET, PASSWORD)
            meta = coder.sign_call(SECRET, PASSWORD, url=w.url, link=auth.link)
            proved = await client.call_tool(SECRET, PASSWORD, meta=meta)
        assert not listed.is_error and refused.envelope["reason"] == "proof_required"
        assert not proved.is_error
        assert [d["proof"] for d in await w.decisions()] == ["dpop", "dpop", "signed"]


async def test_a_blocking_client_works_with_the_same_auth(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)

        def call() -> httpx2.Response:
            with httpx2.Client(auth=auth, timeout=30) as http:
                return http.post(w.url, json=LISTING, headers=HEADERS)

        answer = await anyio.to_thread.run_sync(call)
        assert answer.status_code == 200
        async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
            assert (await http.post(w.url, json=LISTING, headers=HEADERS)).status_code == 200
        assert await sign_ins(w) == 1


async def test_many_requests_at_once_sign_in_once(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth, statuses = (await coder_of(w)).auth(w.url, clock=w.clock), list[int]()

        async def call(http: httpx2.AsyncClient) -> None:
            statuses.append((await http.post(w.url, json=LISTING, headers=HEADERS)).status_code)

        async with httpx2.AsyncClient(auth=auth, timeout=30) as http, anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(call, http)
        assert statuses == [200] * 20
        assert await sign_ins(w) == 1


async def test_threads_share_one_sign_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)
        together, statuses = threading.Barrier(8, timeout=30), list[int]()

        def call() -> None:
            with httpx2.Client(auth=auth, timeout=30) as http:
                together.wait()
                statuses.append(http.post(w.url, json=LISTING, headers=HEADERS).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(anyio.to_thread.run_sync, call)
        assert statuses == [200] * 8 and await sign_ins(w) == 1


async def test_one_auth_serves_an_event_loop_after_the_other(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)

        async def call() -> int:
            async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
                return (await http.post(w.url, json=LISTING, headers=HEADERS)).status_code

        for _ in range(2):
            assert await anyio.to_thread.run_sync(lambda: anyio.run(call)) == 200
        assert await call() == 200 and await sign_ins(w) == 1


async def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)
        async with stock_client(w, auth) as client:
            await client.list_tools()
            w.clock.advance(timedelta(minutes=9))
            assert (await client.list_tools()).tools
            assert await sign_ins(w) == 1
            w.clock.advance(timedelta(seconds=40))
            assert (await client.list_tools()).tools
            assert await sign_ins(w) == 2
            w.clock.advance(timedelta(minutes=30))
            assert (await client.list_tools()).tools
            assert await sign_ins(w) == 3


async def test_a_renewed_token_is_for_the_same_session(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        coder = await coder_of(w)
        auth = coder.auth(w.url, clock=w.clock)
        async with stock_client(w, auth) as client:
            await client.list_tools()
            session = auth.session
            await w.person("bob")
            await w.start(await w.grant("bob", "coder", "pr:read:acme:api"))
            await w.start(await w.running.sessions.only_grant("alice", "coder"))
            w.clock.advance(timedelta(minutes=15))
            assert (await client.list_tools()).tools
        assert (auth.session, auth.subject) == (session, "user:alice")


async def test_when_a_session_is_over_the_next_one_for_the_same_person_is_taken(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        coder = await coder_of(w)
        await w.person("bob")
        await w.start(await w.grant("bob", "coder", "pr:read:acme:api"))
        auth = coder.auth(w.url, clock=w.clock, subject="user:alice")
        async with stock_client(w, auth) as client:
            await client.list_tools()
            await Revocation(w.store, w.clock).revoke("session", str(auth.session), reason="test", by=OPERATOR)
            w.clock.advance(timedelta(seconds=2))
            grant = await w.running.sessions.only_grant("alice", "coder")
            session, _ = await w.start(grant)
            w.clock.advance(timedelta(seconds=2))
            await client.list_tools()
        assert (auth.session, auth.subject) == (session.id, "user:alice")


async def test_a_person_is_chosen_by_name(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        coder = await coder_of(w)
        await w.person("bob")
        session, _ = await w.start(await w.grant("bob", "coder", "pr:read:acme:api"))
        for auth in (
            coder.auth(w.url, clock=w.clock, subject="user:bob"),
            coder.auth(w.url, clock=w.clock, session=session.id),
        ):
            async with stock_client(w, auth) as client:
                assert (await client.list_tools()).tools
            assert (auth.session, auth.subject) == (session.id, "user:bob")


async def test_a_wider_scope_is_asked_for_when_a_call_needs_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await coder_of(w, "pr:read:acme:api secret:read")
        auth = coder.auth(w.url, clock=w.clock, scope="secret:read")
        async with stock_client(w, auth) as client:
            assert not (await called(client, LIST, READ)).is_error
            assert not (await called(client, SECRET, PASSWORD)).is_error
        assert await sign_ins(w) == 2


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_after_a_revocation_the_answer_says_what_happened_and_what_to_do(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)
        async with stock_client(w, auth, mode) as client:
            assert (await client.list_tools()).tools
            await Revocation(w.store, w.clock).revoke("agent", "coder", reason="test", by=OPERATOR)
            for _ in range(2):
                with pytest.raises(
                    MCPError, match=r"does not let agent `coder` sign in; .*`mcp-authz agent show coder` says whether"
                ):
                    await client.list_tools()


async def test_a_first_sign_in_that_fails_raises_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await coder_of(w)
        stranger = AgentIdentity.generate("coder")
        async with httpx2.AsyncClient(auth=stranger.auth(w.url, clock=w.clock)) as http:
            with pytest.raises(SignInRefused, match="`mcp-authz agent show coder` says whether"):
                await http.post(w.url, json=LISTING, headers=HEADERS)
        url = w.url
    async with httpx2.AsyncClient(auth=stranger.auth(url)) as http:
        with pytest.raises(NoAnswer, match="no gateway answers at http://localhost"):
            await http.post(url, json=LISTING, headers=HEADERS)


async def test_a_sign_in_that_is_given_up_leaves_the_next_request_free_to_try() -> None:
    asked = anyio.Event(), anyio.Event()

    async def silent(stream: SocketStream) -> None:
        async with stream:
            next(one for one in asked if not one.is_set()).set()
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="localhost", family=AddressFamily.AF_INET)
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not the one of Django
    auth = AgentIdentity.generate("coder").auth(f"http://localhost:{port}/mcp")
    async with listener, anyio.create_task_group() as serving, httpx2.AsyncClient(auth=auth) as http:
        serving.start_soon(listener.serve, silent)
        for one in asked:
            async with anyio.create_task_group() as asking:
                asking.start_soon(http.get, auth.url)
                with anyio.fail_after(10):
                    await one.wait()
                asking.cancel_scope.cancel()
        serving.cancel_scope.cancel()


async def test_a_clock_that_is_wrong_is_said_to_be(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        coder = await coder_of(w)
        auth = coder.auth(w.url, clock=lambda: w.clock() - timedelta(minutes=20))
        async with httpx2.AsyncClient(auth=auth) as http:
            with pytest.raises(SignInRefused, match=r"the clocks here and there differ by 1\d{3} seconds"):
                await http.post(w.url, json=LISTING, headers=HEADERS)


async def test_a_refusal_that_is_explained_answers_the_request_it_is_of(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)

        def call() -> httpx2.Response:
            with httpx2.Client(auth=auth, timeout=30) as http:
                return http.post(w.url, json={**LISTING, "id": "seven"}, headers=HEADERS)

        assert (await anyio.to_thread.run_sync(call)).status_code == 200
        await Revocation(w.store, w.clock).revoke("agent", "coder", reason="test", by=OPERATOR)
        refused = await anyio.to_thread.run_sync(call)
        assert refused.status_code == 401 and refused.json()["id"] == "seven"
        assert "ask the operator" in refused.json()["error"]["message"]


async def test_requests_that_wait_for_one_sign_in_share_its_refusal(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await coder_of(w)
        auth, refusals = AgentIdentity.generate("coder").auth(w.url, clock=w.clock), set[int]()

        async def call(http: httpx2.AsyncClient) -> None:
            with pytest.raises(SignInRefused) as refused:
                await http.post(w.url, json=LISTING, headers=HEADERS)
            refusals.add(id(refused.value))

        async with httpx2.AsyncClient(auth=auth, timeout=30) as http, anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call, http)
        assert len(refusals) == 1


async def test_nothing_of_the_agent_goes_to_another_place(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth = (await coder_of(w)).auth(w.url, clock=w.clock)
        with elsewhere() as other:
            async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
                assert (await http.post(w.url, json=LISTING, headers=HEADERS)).status_code == 200
                await http.post(f"{other.url}/mcp", json=LISTING, headers=HEADERS)
                beside = await http.get(w.url.replace("/mcp", "/healthz"))
        (heard,) = other.heard
        assert not {"authorization", "dpop"} & heard.keys()
        assert "authorization" not in beside.request.headers


async def test_a_redirect_elsewhere_takes_no_token_along() -> None:
    """What claims to be a gateway sends everybody to somebody else: nobody there hears of who asked."""
    with elsewhere() as other, elsewhere() as gateway:
        gateway.redirect = f"{other.url}/mcp"
        auth = AgentIdentity.generate("coder").auth(f"{gateway.url}/mcp")
        async with httpx2.AsyncClient(auth=auth, timeout=30, follow_redirects=True) as http:
            with pytest.raises(NoAnswer):
                await http.post(f"{gateway.url}/mcp", json=LISTING, headers=HEADERS)
        assert not other.heard


async def test_a_signed_call_is_the_same_call_and_its_length_is_right(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        auth, sent = (await coder_of(w)).auth(w.url, clock=w.clock), list[httpx2.Request]()

        async def keep(request: httpx2.Request) -> None:
            sent.append(request)

        hooks = {"request": [keep]}
        async with httpx2.AsyncClient(auth=auth, timeout=30, event_hooks=hooks, headers={"x-trace": "1"}) as http:
            await http.post(w.url, json=CALL, headers=CALLING)
        body = json.loads(sent[-1].content)
        assert body["params"]["_meta"].pop(INVOCATION) and body == CALL
        assert int(sent[-1].headers["content-length"]) == len(sent[-1].content)
        assert sent[-1].headers["x-trace"] == "1" and sent[-1].headers["authorization"].startswith("DPoP ")
        assert {request.extensions["timeout"]["read"] for request in sent} == {30}
