"""Row 9: the arguments, or the tool, are swapped after a call was signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attacker import answer_in, handshake, reason, spy, tool
from tests.signing import signing
from tests.world import world

SIGNED = {"*": {"hazard": "write", "scopes": ["spy:use"], "proof": "signed"}}
LARGE = {"text": "x" * 70_000}  # a proof carries the digest of so much

SWAPS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"repo": "api"}, "spy__push", {"repo": "web"}),
    ({"repo": "api"}, "spy__push", {"repo": "api", "force": True}),
    ({"repo": "api"}, "spy__push", {}),
    ({"repo": "api", "count": 1}, "spy__push", {"repo": "api", "count": True}),
    ({"repo": "api"}, "spy__delete", {"repo": "api"}),
    (LARGE, "spy__push", {"text": LARGE["text"] + "y"}),
]


async def test_what_was_swapped_after_signing_reaches_no_tool_in_either_era(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("push"), tool("delete"))
    async with world(tmp_path, servers={"spy": server.config(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "spy:use")
        sign, token = await signing(w, coder), await w.token(coder)
        said = []
        async with handshake(w, token) as session:
            for arguments, sent_tool, sent in SWAPS:
                meta = sign.meta("spy__push", arguments, at=w.clock())
                said.append(answer_in(await w.raw_call(token, sent_tool, sent, meta=meta)))
                said.append(await session.call(sent_tool, sent, _meta=meta))
        assert [reason(answer) for answer in said] == ["proof_invalid"] * 2 * len(SWAPS)
        assert server.ran == []

        for arguments, _, _ in SWAPS:  # as it was signed, each runs
            meta = sign.meta("spy__push", arguments, at=w.clock())
            answer = answer_in(await w.raw_call(token, "spy__push", arguments, meta=meta))
            assert not answer["result"].get("isError"), answer
        assert len(server.ran) == len(SWAPS)


@pytest.mark.parametrize("name", ["uri", "arguments"])
async def test_a_signed_call_of_a_tool_is_no_proof_of_another_method(tmp_path: Path, name: str) -> None:
    server = spy(tmp_path / "spy", tool("push"))
    async with world(tmp_path, servers={"spy": server.config(tools=SIGNED)}) as w:
        coder = await w.ready("coder", "spy:use")
        sign, token = await signing(w, coder), await w.token(coder)
        meta = sign.meta("resources/read", {name: "spy__push"}, at=w.clock())
        answer = answer_in(await w.raw_call(token, "spy__push", {name: "spy__push"}, meta=meta))
        assert reason(answer) == "proof_invalid" and server.ran == []
