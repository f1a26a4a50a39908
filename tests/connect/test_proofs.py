"""What `connect` adds on the way: a proof of every call, and proofs that its tokens are its own; no client sees any."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz.client.agent_tokens import AgentTokens
from mcp_authz.client.delegation import delegate
from mcp_authz.client.door import Door
from mcp_authz.client.messages import made, read
from mcp_authz.client.passing import as_passed
from mcp_authz.client.place import Reached
from mcp_authz.client.signing import Signer
from mcp_authz.client.wire import Wire as GatewayWire
from mcp_authz.ids import new_link
from mcp_authz.installation import open_installation
from mcp_authz.principals import Chain
from mcp_authz.rules import dpop, jose, link_id
from mcp_authz.rules.call_proof import DELEGATION, INVOCATION, proved, read_call_proof
from mcp_authz.rules.keys import PrivateKey
from tests.connect.desktop import SCOPE, desktop, envelope_of, modern, tools
from tests.connect.test_identity import connected
from tests.road.places import BOTH, plain
from tests.road.test_prompt import Person
from tests.servers.start import PLAIN
from tests.world import Actor, World, world

SAY: dict[str, Any] = {"result": {"content": [], "structuredContent": {"ran": True}}}
SIGNED = {"read": "signed", "write": "signed", "destructive": "signed"}
KEY = PrivateKey.from_seed(b"\x05" * 32)
RESOURCE = "https://gateway.example/mcp"


@BOTH
async def test_a_client_that_knows_nothing_of_proofs_uses_tools_that_demand_them(tmp_path: Path, mode: str) -> None:
    classes = {"*": {"hazard": "read", "scopes": [SCOPE]}, "fail": {"hazard": "destructive", "scopes": [SCOPE]}}
    book = tools(*PLAIN, "book", tools={**classes, "resources/read": {"hazard": "read", "scopes": [SCOPE]}})
    yes = Person("accept", {"approve": True})
    with desktop(tmp_path, {"plain": book}) as d:
        d.configure({"plain": book}, proof=SIGNED)
        await d.settle(interactive=True)
        async with d.client(mode, elicitation_callback=yes) as client:
            done = await client.call_tool("plain__say", SAY)
            seen = await client.call_tool("plain__received", {"größe": [1.0, None]}, meta={"x.example/kept": 1})  # type: ignore[arg-type]
            read = await client.read_resource((await client.list_resources()).resources[0].uri)
            with pytest.raises(Exception, match="told so"):  # approved by prompt: a retry, signed again, in one era
                await client.call_tool("plain__fail", {"error": {"code": -32050, "message": "told so"}})
        async with open_installation(d.config) as here:
            decided = [record.event.fields for record in await here.store.records(kind="decision", limit=100)]
    assert done.structured_content == {"ran": True} and read.contents and len(yes.asked) == 1
    assert seen.structured_content is not None
    meta = seen.structured_content["value"]["_meta"]
    assert meta["x.example/kept"] == 1 and not [key for key in meta if key.startswith("dev.mcp-authz/")]
    assert {fields["proof"] for fields in decided} == {"signed"}
    ids = [fields["proof_id"] for fields in decided if fields["decision"] == "permit"]
    assert len(set(ids)) == len(ids) == 4


async def test_what_the_client_says_under_our_prefix_is_not_passed_on(tmp_path: Path) -> None:
    claimed = {INVOCATION: "forged", DELEGATION: ["x"], "dev.mcp-authz/else": 1, "x.example/kept": 1}
    async with world(tmp_path, servers={"plain": plain()}, proof=SIGNED) as w:
        coder = await w.ready("coder", "use")
        async with connected(w, coder) as wire:
            received = await wire.call(1, "plain__received", {"n": 1}, _meta={**modern(), **claimed})
    meta = received["structuredContent"]["value"]["_meta"]
    assert meta["x.example/kept"] == 1 and not [key for key in meta if key.startswith("dev.mcp-authz/")]


async def test_a_request_for_a_session_is_signed_too(
    tmp_path: Path,
) -> None:
    asked = {"purpose": "to test"}
    async with world(tmp_path, servers={"plain": plain()}, proof=SIGNED) as w:
        coder = await w.ready("coder", "use")
        async with connected(w, coder) as wire:
            held = await wire.call(1, "authz__request_session", asked, _meta=modern())
        assert envelope_of(held)["outcome"] == "held"
        (decision,) = await w.decisions()
    assert decision["proof"] == "signed" and decision["proof_id"]


async def test_its_tokens_are_bound_to_the_agents_key(tmp_path: Path) -> None:
    bound = {"read": "dpop"}
    async with world(tmp_path, servers={"plain": plain()}, proof=bound) as w:
        coder, tokens = await w.ready("coder", "use"), list[Any]()
        call = w.running.gateway.call

        async def overheard(caller: Any, message: Any, channel: Any) -> Any:
            tokens.append(caller.token)
            return await call(caller, message, channel)

        w.running.gateway.call = overheard  # type: ignore[method-assign]
        async with connected(w, coder) as wire:
            assert not (await wire.call(1, "plain__say", SAY, _meta=modern())).get("isError")
            await wire.introduce()
            assert not (await wire.call(2, "plain__say", SAY)).get("isError")
    assert {token.confirmation for token in tokens} == {coder.key.public.thumbprint}


def passed(params: Mapping[str, Any], method: str = "tools/call", link: str | None = None) -> dict[str, Any]:
    """The parameters of a request as the gateway gets them."""
    message = made({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    signer = Signer(key=KEY, link=link or new_link(datetime.now(UTC)), resource=RESOURCE)
    sent: dict[str, Any] = json.loads(as_passed(message, signer, at=datetime.now(UTC)))["params"]
    return sent


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "a__b", "arguments": {"n": 1.50, "ü": "\u2028"}}),
        ("tools/call", {"name": "a__b"}),
        ("tools/call", {"name": "a__b", "arguments": {}, "requestState": "s", "inputResponses": {"a": {}}}),
        ("prompts/get", {"name": "a__b", "arguments": {"x": "y"}, "requestState": "s"}),
        ("resources/read", {"uri": "book://one", "_meta": {"progressToken": 7}}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "a__b"}, "argument": {"name": "x", "value": ""}},
        ),
    ],
)
def test_every_governed_request_carries_a_proof_of_itself_and_is_otherwise_as_it_was(
    method: str, params: dict[str, Any]
) -> None:
    link = new_link(datetime.now(UTC))
    sent = passed(params, method, link)
    proof = sent["_meta"].pop(INVOCATION)
    assert sent == {**params, "_meta": params.get("_meta", {})}
    wanted = proved(method, params, link=link_id.jti(link), audience=RESOURCE)
    assert read_call_proof(proof, wanted, holder=KEY.public, now=datetime.now(UTC)).id


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a__b","arguments":{"a":1,"a":2}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a__b","arguments":{"n":9007199254740993}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a__b","arguments":[1]}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":1,  "a":2}}',
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a__b"}}',
    ],
    ids=["twice", "large", "list", "params", "other", "notification"],
)
def test_what_cannot_be_signed_goes_as_it_was_read(raw: bytes) -> None:
    signer = Signer(key=KEY, link=new_link(datetime.now(UTC)), resource=RESOURCE)
    assert as_passed(read(raw), signer, at=datetime.now(UTC)) == raw
    assert as_passed(read(raw), None, at=datetime.now(UTC)) == raw


class Somewhere:
    """A place where whatever a test says is the gateway."""

    patience, name = 5.0, RESOURCE

    def __init__(self, answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
        door = Door(
            issuer="https://gateway.example",
            token_endpoint="http://localhost:1/token",  # as HTTP gets there
            published="https://gateway.example/token",
        )
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        self._reached = Reached(http=http, url="http://localhost:1/mcp", resource=RESOURCE, door=door)

    async def reach(self, *, start: bool = True) -> Reached:
        return self._reached

    def lost(self) -> None:
        pass

    async def aclose(self) -> None:
        await self._reached.http.aclose()


async def asked(place: Somewhere) -> list[Mapping[str, Any]]:
    """What one call comes to."""
    wire, heard = GatewayWire(place, AgentTokens(place, "coder", lambda: KEY)), list[Mapping[str, Any]]()

    async def deliver(_: bytes, body: Mapping[str, Any], __: Any) -> None:
        heard.append(body)

    params = {"name": "a__b", "arguments": {}, "_meta": modern()}
    await wire.request(made({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}), deliver)
    await wire.aclose()
    return heard


async def test_a_gateway_that_binds_no_tokens_and_signs_no_links_is_spoken_to_as_ever() -> None:
    requests = list[httpx2.Request]()

    def gateway(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        if request.url.path == "/token":
            return httpx2.Response(200, json={"access_token": "t", "token_type": "Bearer", "expires_in": 600})
        return httpx2.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": {}})

    assert (await asked(Somewhere(gateway)))[0]["result"] == {}
    called = requests[-1]
    assert called.headers["authorization"] == "Bearer t" and "dpop" not in called.headers
    assert json.loads(called.content)["params"]["_meta"] == modern()


async def test_a_nonce_that_is_asked_for_is_sent_at_both_places_and_the_next_one_is_taken_from_each_answer() -> None:
    nonces = {"/token": "first", "/mcp": "one"}
    seen = list[tuple[str, str | None]]()

    def gateway(request: httpx2.Request) -> httpx2.Response:
        path, proof = request.url.path, jose.read(request.headers["dpop"], allow_jwk=True).claims
        assert proof["htu"] == f"https://gateway.example{path}" and proof["htm"] == request.method
        seen.append((path, proof.get("nonce")))
        headers = {"dpop-nonce": nonces[path]}
        if proof.get("nonce") != nonces[path]:
            challenge = {"www-authenticate": 'DPoP error="use_dpop_nonce"', **headers}
            return httpx2.Response(
                400 if path == "/token" else 401, json={"error": "use_dpop_nonce"}, headers=challenge
            )
        if path == "/token":
            return httpx2.Response(
                200, json={"access_token": "t", "token_type": "DPoP", "expires_in": 600}, headers=headers
            )
        assert request.headers["authorization"] == "DPoP t" and proof["ath"] == dpop.token_hash("t")
        return httpx2.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": {}}, headers=headers)

    assert (await asked(Somewhere(gateway)))[0]["result"] == {}
    assert seen == [("/token", None), ("/token", "first"), ("/mcp", None), ("/mcp", "one")]


async def test_a_gateway_that_wants_another_nonce_each_time_is_not_asked_without_end() -> None:
    count = 0

    def gateway(request: httpx2.Request) -> httpx2.Response:
        nonlocal count
        if request.url.path == "/token":
            return httpx2.Response(200, json={"access_token": "t", "token_type": "DPoP", "expires_in": 600})
        count += 1
        headers = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": f"n{count}"}
        return httpx2.Response(401, json={}, headers=headers)

    with pytest.raises(Exception, match="nonce"):
        await asked(Somewhere(gateway))
    assert count == 2


async def chain_of(w: World, actor: Actor) -> tuple[str, ...]:
    """The signed chain of the agent's only open session."""
    ((session, link),) = await w.store.open_links(actor.name, w.clock())
    standing = await w.store.standing(agent=actor.name, key=actor.key.public.thumbprint, person=None, link=link.id)
    root: tuple[str, ...] = await w.running.chains.root(link, session, Chain(links=standing.links), standing.key)
    return root


async def test_an_agent_and_a_child_work_in_what_was_delegated_to_them_offline(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}, proof=SIGNED) as w:
        planner = await w.ready("planner", "use", depth=3, delegates_to={"coder"})
        coder, worker = await w.agent("coder", ceiling="use", depth=2), Actor("coder/worker-7", PrivateKey.generate())
        given = delegate(await chain_of(w, planner), planner.key, to=coder.key.public, scope="use", depth=1)
        further = delegate(given, coder.key, to=worker.key.public, child="worker-7")
        for actor, text, names in (
            (coder, given, ["planner", "coder"]),
            (worker, further, ["planner", "coder", "coder/worker-7"]),
        ):
            file = tmp_path / f"{len(names)}.chain"
            file.write_text(text)
            (w.directory / actor.name).parent.mkdir(exist_ok=True)  # for its key
            async with connected(w, actor, "--chain", str(file)) as wire:
                assert not (await wire.call(1, "plain__say", SAY, _meta=modern())).get("isError")
            (decision,) = [d for d in await w.decisions() if d["actor"] == f"agent:{actor.name}"]
            assert decision["decision"] == "permit" and decision["proof"] == "signed"
            renewed = await w.token_answer(actor, client_assertion=w.assertion(actor, delegation=decision["link"]))
            assert renewed.json()["link"] == decision["link"]
            assert decision["chain"] == [f"agent:{name}" for name in names] and decision["subject"] == "user:alice"


async def test_a_chain_leaves_no_choice_of_person_or_session(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with connected(w, coder, "--chain", "x", "--for", "alice") as wire:
            assert await wire.closed() == 1
