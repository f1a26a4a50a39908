"""The context tokens of this installation: which tool servers get one, and the keys that make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from mcp_authz import limits
from mcp_authz.ids import new_id
from mcp_authz.live_keys import LiveKeys
from mcp_authz.model import Admitted, HeldCall
from mcp_authz.principals import Caller, Mode
from mcp_authz.rules.context_token import SALT_BYTES, Approved, CallContext, pairwise, sign_context
from mcp_authz.rules.hold import evidence_assurance
from mcp_authz.rules.keys import random_bytes
from mcp_authz.store.ports import Clock, Store

_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextAudience:
    """A tool server that gets a context token with each call."""

    audience: str
    subject: Literal["pairwise", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Who gets context tokens, and what makes them; the signing keys sign nothing else."""

    issuer: str
    audiences: Mapping[str, ContextAudience]  # by the server's configured name; others get none
    keys: LiveKeys
    pairwise_key: bytes = field(repr=False)

    @classmethod
    async def load(
        cls, store: Store, *, issuer: str, audiences: Mapping[str, ContextAudience], clock: Clock
    ) -> Contexts:
        """Return the context tokens of this installation; the first call makes the keys.

        Raises:
            StoreError: the store cannot be read or written.
        """
        return cls(
            issuer=issuer,
            audiences=audiences,
            keys=await LiveKeys.load(store, "context", clock=clock),
            # A key of its own, so that people keep their names when the signing key is rotated.
            pairwise_key=await store.secret("pairwise-key", lambda: random_bytes(_SECRET_BYTES)),
        )

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517 section 5)."""
        return self.keys.jwks

    def token(self, admitted: Admitted, caller: Caller, approved: HeldCall | None, *, at: datetime) -> str:
        """Return a fresh token for one forwarding of this call to a server in `audiences`."""
        session, chain = caller.session, caller.chain
        assert session is not None and chain is not None  # noqa: S101 - step 14 admits nobody else
        tool, server = admitted.call.tool, self.audiences[admitted.call.tool.server]
        subject, known_session = session.principal, str(session.id)
        if server.subject == "pairwise":
            # The session, too: by its id two servers could tell that they serve the same person.
            known_session = pairwise(f"session:{session.id}", audience=server.audience, key=self.pairwise_key)
            if session.subject is not None:
                subject = pairwise(session.principal, audience=server.audience, key=self.pairwise_key)
        agents = () if session.mode is Mode.IMPERSONATED else chain.agents
        context = CallContext(
            id=new_id("x"),
            call=admitted.call_id,
            subject=subject,
            actors=tuple(f"agent:{name}" for name in reversed(agents)),
            session=known_session,
            mode=session.mode,
            tool=tool.tool,
            approval=None if approved is None else Approved(hold=approved.id, assurance=evidence_assurance(approved)),
            issued_at=at,
            expires_at=at + limits.CONTEXT_LIFETIME,
        )
        return sign_context(
            context,
            issuer=self.issuer,
            audience=server.audience,
            arguments=admitted.call.arguments,
            salt=random_bytes(SALT_BYTES),
            key=self.keys.signing,
        )
