"""Row 44, where policy redacts: a secret in what a tool server says reaches neither the caller nor anything written."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.test_44_secrets_written_down import CANARY, files_with, found_in
from tests.road.limited import permitting
from tests.road.places import BOTH, DESTRUCTIVE, plain
from tests.road.wire import wire
from tests.world import MODERN, world

REDACT = {"secrets": {"patterns": [CANARY[:7] + r"[0-9a-f-]+"], "fields": ["password"]}}
BYTES = "Q0FOQVJZLTJmMWQ5YzBiN2E="  # CANARY-2f1d9c0b7a
RESULTS: Mapping[str, Any] = {
    "text": {"content": [{"type": "text", "text": f"key: {CANARY}"}]},
    "text in an error": {"content": [{"type": "text", "text": CANARY}], "isError": True},
    "JSON in text": {"content": [{"type": "text", "text": json.dumps({"a": [{"password": CANARY[::-1]}]})}]},
    "a field in text": {"content": [{"type": "text", "text": f"Password={CANARY[::-1]}"}]},
    "an escape in JSON in text": {"content": [{"type": "text", "text": '{"k": "\\u0043ANARY-2f1d9c0b7a"}'}]},
    "structured content": {"content": [], "structuredContent": {"k": CANARY, "password": {"deep": CANARY[::-1]}}},
    "a member's name": {"content": [], "structuredContent": {CANARY: 1, "list": [{CANARY: None}]}},
    "_meta": {"content": [], "_meta": {"com.example/x": CANARY}},
    "a state without a question": {"content": [], "requestState": CANARY},
    "an unknown member": {"content": [], "x-unknown": {"y": [CANARY]}},
    "an image": {"content": [{"type": "image", "data": BYTES, "mimeType": "image/png"}]},
    "audio": {"content": [{"type": "audio", "data": BYTES, "mimeType": "audio/wav"}]},
    "a binary resource": {"content": [{"type": "resource", "resource": {"uri": "x:y", "blob": BYTES}}]},
    "a text resource": {"content": [{"type": "resource", "resource": {"uri": f"x:{CANARY}", "text": CANARY}}]},
    "a link": {"content": [{"type": "resource_link", "uri": f"x:{CANARY}", "name": CANARY, "description": CANARY}]},
    "a content type of tomorrow": {"content": [{"type": "video", "data": BYTES, "mimeType": "video/mp4"}]},
}


@BOTH
async def test_a_secret_in_anything_that_a_server_says_is_taken_out(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [
        {"method": "notifications/progress", "params": {"progress": 1, "message": CANARY}},
        {"method": "notifications/message", "params": {"level": "error", "data": {CANARY: [CANARY]}, "logger": CANARY}},
        {"method": "notifications/unheard_of", "params": {"x": CANARY}},
        {"method": f"notifications/{CANARY}", "params": {}},
    ]
    meta = {"progressToken": 1, **({"io.modelcontextprotocol/logLevel": "debug"} if mode == MODERN else {})}
    policy = permitting(tmp_path, '@redact("secrets")')
    async with world(tmp_path, servers={"plain": plain()}, policy=policy, redact=REDACT) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            for where, result in RESULTS.items():
                reply = await client.call("plain__say", {"result": result})
                assert "result" in reply.messages[-1], where
                assert not leaks(reply.messages), where
            assert not leaks((await client.call("plain__notify", {"notifications": said}, meta=meta)).messages)
            error = {"code": -32000, "message": f"bad {CANARY}", "data": [{"password": 1, "k": CANARY}]}
            assert not leaks((await client.call("plain__fail", {"error": error})).messages)
        outcomes = [record.event.fields for record in await w.records("outcome")]
        assert all("redacted" in fields for fields in outcomes)
        assert [fields["redacted"] for fields in outcomes[: len(RESULTS)]].count(0) == 0
        assert files_with(tmp_path / "data") == []
    assert CANARY not in caplog.text


async def test_the_stored_result_of_a_held_call_has_no_secret_either(tmp_path: Path) -> None:
    policy = permitting(tmp_path, '@redact("secrets")')
    async with world(tmp_path, servers={"plain": plain(tools=DESTRUCTIVE)}, policy=policy, redact=REDACT) as w:
        coder = await w.ready("coder", "use")
        result = RESULTS["structured content"]
        held = await w.call(coder, "plain__say", result=result)
        await w.answer(held.hold, by="alice")
        for _ in range(2):
            assert not leaks([dict((await w.call(coder, "plain__say", result=result)).result)])
        assert not leaks([(await w.store.hold(held.hold)).result])


def leaks(messages: Any) -> bool:
    """Whether the secret is in them, in one of the ways in which it could be written."""
    return found_in(json.dumps(messages, ensure_ascii=False).encode())
