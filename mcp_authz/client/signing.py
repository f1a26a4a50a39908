"""The call proof in a JSON-RPC message: a governed request says, signed, what exactly it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.ids import new_id
from mcp_authz.rules import link_id, strict_json
from mcp_authz.rules.call_proof import INVOCATION, prove_call, proved
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.message import GOVERNED


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Whose calls are signed: the key that signed in, the link it signed in for, the gateway it talks to."""

    key: PrivateKey = field(repr=False)
    link: str  # as the token response says it, `l_...`
    resource: str  # the URL of the gateway's MCP endpoint

    def proof(self, method: str, params: Mapping[str, Any], *, at: datetime) -> str:
        """Return the proof of one request of this method and with these parameters; it counts once, and just now.

        Raises:
            InputError: such a request is not signed, or its parameters have no canonical form.
        """
        call = proved(method, params, link=link_id.jti(self.link), audience=self.resource)
        return prove_call(call, id=new_id("p"), at=at, key=self.key)

    def signed(self, raw: bytes, *, at: datetime) -> bytes:
        """Return the message with its proof in `_meta`; one that needs none, or is not valid anyway, as it is.

        Everything else of it stays as it was: what a header repeats of it still agrees.
        """
        try:
            message = strict_json.parse_object(raw, max_bytes=limits.BODY_BYTES)
            method, params = message.get("method"), message.get("params")
            if "id" not in message or not isinstance(method, str) or method not in GOVERNED:
                return raw
            meta = params.get("_meta", {}) if isinstance(params, dict) else None
            if not isinstance(params, dict) or not isinstance(meta, dict) or INVOCATION in meta:
                return raw
            proof = self.proof(method, params, at=at)
            return strict_json.dump({**message, "params": {**params, "_meta": {**meta, INVOCATION: proof}}})
        except InputError:  # the gateway says what is wrong with it
            return raw
