"""Row 17: the proof of a call is captured on its way and used again, here or at another gateway."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_authz.rules.call_proof import INVOCATION
from tests.attacks.attacker import answer_in, handshake, reason, spy, tool
from tests.connect.desktop import modern
from tests.connect.test_identity import connected
from tests.signing import signing
from tests.world import World, world

SIGNED = {"*": {"hazard": "read", "scopes": ["spy:use"], "proof": "signed"}}
ARGUMENTS = {"repo": "api"}


def captured(w: World) -> list[dict[str, Any]]:
    """The `_meta` of every call that reaches the gateway from now on: what somebody between the two would see."""
    seen, gateway = list[dict[str, Any]](), w.running.gateway
    call = gateway.call

    async def overheard(caller: Any, message: Any, channel: Any) -> Any:
        seen.append(dict(message.meta))
        return await call(caller, message, channel)

    gateway.call = overheard  # type: ignore[method-assign]
    return seen


async def test_a_proof_that_connect_made_is_of_no_use_to_whoever_sees_it(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "spy:use")
        seen = captured(w)
        async with connected(w, coder) as wire:
            await wire.call(1, "spy__look", ARGUMENTS, _meta=modern())
        assert len(server.ran) == 1
        # Even with a token of the same agent, and of the same session: the thief needs no key for a bearer token.
        token, meta = await w.token(coder), {INVOCATION: seen[0][INVOCATION]}
        said = [answer_in(await w.raw_call(token, "spy__look", ARGUMENTS, meta=meta))]
        async with handshake(w, token) as session:
            said.append(await session.call("spy__look", ARGUMENTS, _meta=meta))
        assert [reason(answer) for answer in said] == ["replayed"] * 2
        w.clock.advance(timedelta(minutes=5))
        late = answer_in(await w.raw_call(await w.token(coder), "spy__look", ARGUMENTS, meta=meta))
        assert reason(late) == "proof_invalid"
        assert len(server.ran) == 1


async def test_a_proof_for_one_gateway_is_none_at_another_that_knows_the_same_agent_and_link(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    servers = {"spy": server.config(tools=SIGNED)}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "spy:use")
        meta = (await signing(w, coder)).meta("spy__look", ARGUMENTS, at=w.clock())
        async with world(tmp_path, servers=servers) as other:  # on the same store, at another URL
            answer = answer_in(await other.raw_call(await other.token(coder), "spy__look", ARGUMENTS, meta=meta))
            assert reason(answer) == "proof_invalid" and server.ran == []
            mended = (await signing(other, coder)).meta("spy__look", ARGUMENTS, at=w.clock())
            answer = answer_in(await other.raw_call(await other.token(coder), "spy__look", ARGUMENTS, meta=mended))
            assert not answer["result"].get("isError") and len(server.ran) == 1


async def test_two_agents_that_choose_the_same_id_do_not_use_up_each_others_proofs(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools=SIGNED)}) as w:
        for name in ("coder", "thief"):
            actor = await w.ready(name, "spy:use")
            meta = (await signing(w, actor)).meta("spy__look", ARGUMENTS, at=w.clock(), id="p_same")
            answer = answer_in(await w.raw_call(await w.token(actor), "spy__look", ARGUMENTS, meta=meta))
            assert not answer["result"].get("isError")
        assert len(server.ran) == 2
