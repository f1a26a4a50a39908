"""Who an agent would be if it signed in now: chosen and checked as at a sign-in, and nothing is opened or recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import NotFound, TokenRefused
from mcp_authz.live_keys import LiveKeys
from mcp_authz.oauth.issuing import token_scope
from mcp_authz.principals import AccessToken, Agent, Caller, Grant, Key, Link, PersonName, Proof, Session
from mcp_authz.rules.impersonation import Impersonation
from mcp_authz.sessions import Sessions
from mcp_authz.signatures import Signatures
from mcp_authz.standing import caller_of
from mcp_authz.store.ports import Clock, Standing, Store


class Rehearsal(Sessions):
    """Sessions that are found as ever; one that would begin is made, and kept here alone."""

    begun: tuple[Session, Link] | None = None

    async def start(self, grant: Grant, **bounds: Any) -> tuple[Session, Link]:
        """Return the session as it would be opened; the store knows nothing of it.

        Raises:
            AuthzError: as `Sessions.start`.
        """
        session, root, _ = await self.prepare(grant, **bounds)
        self.begun = session, root
        return self.begun

    async def caller(
        self, agent: Agent, *, subject: PersonName | None = None, session: str | None = None, proof: Proof | None = None
    ) -> Caller:
        """Return the agent as a call of it now would find it; the token that it would get is issued to nobody.

        `proof` None is how `mcp-authz connect` proves its calls. Without a session to choose the caller comes in the
        agent's own name, as a sign-in would.

        Raises:
            NotFound: the agent has no key with which it could sign in.
            TokenRefused: what the token would stand on has ended.
        """
        chosen = await self._chosen(agent, None if subject is None else f"user:{subject}", session)
        key = await self._key(agent, None if chosen is None else chosen[1])
        token = await self._token(agent, key, chosen)
        shown = proof or (Proof.DPOP if key is None else Proof.SIGNED)
        if self.begun is None or token.link != self.begun[1].id:
            return await self.identify(token, shown)
        return caller_of(await self._standing(token, self.begun), token, shown, self._clock())

    async def _chosen(self, agent: Agent, subject: str | None, session: str | None) -> tuple[Session, Link] | None:
        found = await self.which(agent.name, session=session, subject=subject)
        if found is None and agent.client is not None and session is None:
            # Each sign-in of a client has its own session, and its tokens stay in it: the newest is the likeliest.
            return max(await self._open(agent.name, subject), key=lambda pair: pair[0].started_at, default=None)
        return found

    async def _key(self, agent: Agent, link: Link | None) -> Key | None:
        """The key that the agent would sign in with; None for a client agent, which has none."""
        if agent.client is not None:
            return None
        now = self._clock()
        keys = [
            key
            for key in await self._store.keys_of(f"agent:{agent.name}")
            if key.status == "active" and (key.retires_at is None or now < key.retires_at)
        ]
        if not keys:
            raise NotFound(f"agent `{agent.name}` has no active key, so it cannot sign in")
        bound = None if link is None else link.holder_key
        return next((key for key in keys if key.thumbprint == bound), keys[-1])

    async def _token(self, agent: Agent, key: Key | None, chosen: tuple[Session, Link] | None) -> AccessToken:
        session, link = chosen if chosen is not None else (None, None)
        now = self._clock()
        return AccessToken(
            id="rehearsal",
            client_id=agent.client or agent.name,
            actor=agent.name,
            key=None if key is None else key.thumbprint,
            subject=f"agent:{agent.name}" if session is None else session.principal,
            session=None if session is None else session.id,
            link=None if link is None else link.id,
            scope=token_scope(None, agent, link),
            issued_at=now,
            expires_at=now + limits.ACCESS_TOKEN_LIFETIME,
            mode=None if session is None else session.mode,
        )

    async def _standing(self, token: AccessToken, begun: tuple[Session, Link]) -> Standing:
        """What the store would know if the session had begun."""
        session, root = begun
        known = await self._store.standing(agent=token.actor, key=token.key, person=session.subject, link=None)
        grant = await self._store.grant(session.grant)
        if known.agent is None:
            raise TokenRefused("the agent is not active")
        return replace(known, grant=grant, session=session, links=(root,), holders={known.agent.name: known.agent})


async def rehearsal(
    store: Store, clock: Clock, *, issuer: str, impersonations: Iterable[Impersonation] = ()
) -> Rehearsal:
    """Return the sessions of this store, which verify signed chains as the gateway does."""
    read = partial(store.signing_keys, "issuer")
    keys = LiveKeys(read, "issuer", clock, await read())
    signatures = Signatures(
        store=store, issuer=issuer, keys=keys.counting(limits.ROOT_KEY_OVERLAP), is_withdrawn=keys.is_withdrawn
    )
    return Rehearsal(store, clock, signatures, impersonations=impersonations)
