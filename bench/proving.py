"""An agent that proves each request and signs each call: what the load generator needs to make as many as it sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bench.wire import ARGUMENTS, Proof, request
from mcp_authz.ids import new_id
from mcp_authz.rules import dpop
from mcp_authz.rules.call_proof import Proved, prove_call
from mcp_authz.rules.keys import PrivateKey

AHEAD: Final = 1500  # requests made per second of load, before it begins: signing must not slow the load down


@dataclass(frozen=True, slots=True, kw_only=True)
class Prover:
    """The agent's key, its token bound to that key, and what the token stands for; plain values, as JSON has them."""

    pem: str
    token: str
    link: str  # UUIDv7
    resource: str
    tool: str

    def one(self, port: int, key: PrivateKey) -> bytes:
        """A request that nobody has sent yet."""
        at = datetime.now(UTC)
        call = Proved(link=self.link, tool=self.tool, arguments=ARGUMENTS, audience=self.resource)
        proof = Proof(
            request=dpop.make_proof(
                key, method="POST", url=self.resource, at=at, id=new_id("d"), access_token=self.token
            ),
            call=prove_call(call, id=new_id("p"), at=at, key=key),
        )
        return request(port, tool=self.tool, token=self.token, proof=proof)

    def requests(self, port: int, seconds: float) -> Iterator[bytes]:
        """Requests without end, enough of them made already when this returns."""
        key = PrivateKey.from_pem(self.pem)
        made = [self.one(port, key) for _ in range(int(AHEAD * seconds))]

        def all_() -> Iterator[bytes]:
            yield from made
            while True:
                yield self.one(port, key)

        return all_()
