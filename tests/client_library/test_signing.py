"""A call proof is added to a governed request, and nothing else of the message changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_authz.client import AgentIdentity
from mcp_authz.client.agent_identity import leaf
from mcp_authz.client.signing import Signer
from mcp_authz.errors import InputError
from mcp_authz.ids import new_link
from mcp_authz.rules import link_id
from mcp_authz.rules.call_proof import INVOCATION, Proved, proved, read_call_proof
from tests.client_library.chains import root

URL = "https://authz.example.com/mcp"
NOW = datetime(2026, 7, 28, 12, tzinfo=UTC)
CODER = AgentIdentity.generate("coder")
LINK = new_link(NOW)
SIGNER = Signer(key=CODER.key, link=LINK, resource=URL)
CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": "7",
    "method": "tools/call",
    "params": {
        "name": "acme__deploy",
        "arguments": {"ref": "\u00e9\u2028", "n": 1.0, "deep": [{"a": None}]},
        "requestState": "s",
        "_meta": {"progressToken": 3, "io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    },
}


def signed(message: Any) -> Any:
    return json.loads(SIGNER.signed(json.dumps(message).encode(), at=NOW))


def test_a_call_carries_a_proof_of_itself_and_is_unchanged_otherwise() -> None:
    message = signed(CALL)
    proof = message["params"]["_meta"].pop(INVOCATION)
    assert message == CALL and list(message["params"]) == list(CALL["params"])
    assert type(message["params"]["arguments"]["n"]) is float
    call = proved("tools/call", CALL["params"], link=link_id.jti(LINK), audience=URL)
    assert read_call_proof(proof, call, holder=CODER.public_key, now=NOW).id


def test_a_call_without_meta_and_arguments_is_signed_too() -> None:
    message = signed({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "acme__ping"}})
    assert list(message["params"]) == ["name", "_meta"]
    call = Proved(link=link_id.jti(LINK), tool="acme__ping", arguments={}, audience=URL)
    read_call_proof(message["params"]["_meta"][INVOCATION], call, holder=CODER.public_key, now=NOW)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {"uri": "acme+file:///a"}),
        ("prompts/get", {"name": "acme__review", "arguments": {"a": "b"}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": "b"}}),
    ],
)
def test_every_request_that_reaches_a_tool_server_is_signed(method: str, params: dict[str, Any]) -> None:
    message = signed({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    call = proved(method, params, link=link_id.jti(LINK), audience=URL)
    read_call_proof(message["params"]["_meta"][INVOCATION], call, holder=CODER.public_key, now=NOW)


def test_each_proof_is_another() -> None:
    assert signed(CALL) != signed(CALL)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}',
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","name":"y"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":[]}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}',
        b'{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"x"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1e999}}}',
        b'[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}]',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b"not json",
        b"",
    ],
)
def test_what_is_no_call_or_no_message_stays_as_it_is(raw: bytes) -> None:
    assert SIGNER.signed(raw, at=NOW) == raw


def test_a_call_that_is_signed_already_keeps_its_proof() -> None:
    message = signed(CALL)
    assert signed(message) == message


def test_a_proof_made_by_hand_is_of_exactly_that_call() -> None:
    chain = root(CODER)
    meta = CODER.sign_call("acme__deploy", {"ref": "main"}, url="https://authz.example.com", chain=chain, at=NOW)
    call = Proved(link=leaf(chain).id, tool="acme__deploy", arguments={"ref": "main"}, audience=URL)
    read_call_proof(meta[INVOCATION], call, holder=CODER.public_key, now=NOW)
    with pytest.raises(InputError, match="link=, as of"):
        CODER.sign_call("acme__deploy", {}, url=URL)
