"""What a request of the client's becomes on its way: the same, without what is ours to say, and signed."""

from __future__ import annotations

from datetime import datetime

from mcp_authz import limits
from mcp_authz.client.messages import Message
from mcp_authz.client.signing import Signer
from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json
from mcp_authz.rules.call_proof import INVOCATION
from mcp_authz.rules.message import GOVERNED, without_own_meta


def as_passed(message: Message, signer: Signer | None, *, at: datetime) -> bytes:
    """Return the message as the gateway gets it: a governed request with the proof of it, any other as it was read.

    Without a link there is nothing to sign for. A request that has no one reading goes as it is: the gateway says what
    is wrong with it, and what is signed must mean the same to everybody.
    """
    if message.method not in GOVERNED or not message.is_request:
        return message.raw
    try:
        body = strict_json.parse_object(message.raw, max_bytes=limits.BODY_BYTES)
    except InputError:
        return message.raw
    params = body.get("params", {})
    meta = params.get("_meta", {}) if isinstance(params, dict) else None
    if not isinstance(meta, dict):
        return message.raw
    kept = without_own_meta(meta)
    try:
        proof = {} if signer is None else {INVOCATION: signer.proof(message.method, params, at=at)}
    except InputError:  # it says nothing that could be signed, or its link is older than links that can be
        proof = {}
    if kept == meta and not proof:
        return message.raw
    return strict_json.dump({**body, "params": {**params, "_meta": {**kept, **proof}}})
