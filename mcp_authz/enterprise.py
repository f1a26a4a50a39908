"""What the company's identity provider lets clients do for its people: an assertion of it opens a session here.

No person is asked: the operator has said whose word counts, for which clients, and for how much at most. An open
session that an earlier assertion gave for the same person, client and scopes goes on; nothing is renewed without one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz import limits
from mcp_authz.authorization import RegisteredClient
from mcp_authz.errors import AuthzError, Conflict, DelegationError, NotFound, SignatureRefused
from mcp_authz.ids import new_id
from mcp_authz.people_elsewhere import PeopleElsewhere, Provider, Vouched
from mcp_authz.principals import (
    Agent,
    AgentName,
    Authentication,
    ClientId,
    Grant,
    GrantId,
    Once,
    Person,
    PersonName,
    Thumbprint,
)
from mcp_authz.provider_keys import ProviderKeys
from mcp_authz.renewing import Renewed
from mcp_authz.rules.id_jag import Expected, IdentityAssertion, read_assertion
from mcp_authz.rules.scope import Scope, common
from mcp_authz.rules.token import MINIMAL_SCOPE
from mcp_authz.sessions import Sessions
from mcp_authz.standing import is_over
from mcp_authz.store.ports import Clock, Event, Store

_UNKNOWN: Final = datetime(1970, 1, 1, tzinfo=UTC)  # when the person signed in, where the provider does not say


class NotTrusted(AuthzError):
    """A client that the configuration does not let bring assertions of the provider."""

    code = "not_trusted"


class NothingGiven(AuthzError):
    """Nothing is left of what was asked for, once assertion, configuration and ceiling have been looked at."""

    code = "nothing_given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What assertions are good for in the hands of one client."""

    scope: frozenset[Scope]  # at most
    known_as: str  # what the provider's assertions call the client


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose assertions count, and in whose hands."""

    provider: Provider
    tenant: str | None = None
    clients: Mapping[ClientId, Trusted] = field(default_factory=dict)


def is_by_assertion(grant: Grant) -> bool:
    """Whether it ends with its one session, as those do that assertions give: nobody agrees to less than a day."""
    return grant.client is not None and grant.expires_at - grant.granted_at <= limits.SESSION_LIFETIME


class Enterprise:
    """Reads assertions of the one provider, and gives for each what provider, operator and client agree on."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        sessions: Sessions,
        keys: ProviderKeys,
        trust: Trust,
        audience: str,
        resource: str,
        ceiling: Callable[[], frozenset[Scope]],
        keep: Callable[[RegisteredClient], Awaitable[RegisteredClient]],
    ) -> None:
        """`audience` is our issuer identifier; `ceiling` gives what client agents may have at most.

        `keep` makes a client known to the store.
        """
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._keys = keys
        self._trust = trust
        self._audience = audience
        self._resource = resource
        self._ceiling = ceiling
        self._keep = keep
        provider = trust.provider
        self._people = PeopleElsewhere(store, clock, provider)
        # An assertion need not say the groups: one that does not takes nobody out of any.
        self._ungrouped = PeopleElsewhere(store, clock, replace(provider, groups={}))

    async def ready(self, text: str) -> None:
        """The provider was asked for its keys, where reading this assertion may need that."""
        await self._keys.ready(text)

    async def read(self, client: RegisteredClient, text: str, *, shown: Thumbprint | None) -> IdentityAssertion:
        """Return the assertion, which counts in the hands of this client, now and never again.

        `shown` is the key of the request's own proof of possession.

        Raises:
            NotTrusted: the client is one that proves nothing of itself, or none that the configuration names.
            SignatureRefused: it is not valid here, or was used before.
        """
        trusted = self._trust.clients.get(client.id)
        if trusted is None or client.is_public:
            raise NotTrusted(f"`{client.id}` is no client with a key or a secret that `[enterprise.clients]` names")
        assertion = read_assertion(
            text,
            keys=self._keys.known,
            expected=Expected(
                issuer=self._trust.provider.issuer,
                audience=self._audience,
                resource=self._resource,
                client=trusted.known_as,
                tenant=self._trust.tenant,
            ),
            now=self._clock(),
        )
        if assertion.confirmation not in (None, shown):
            raise SignatureRefused("it is bound to a key, and the request has no proof by that key")
        once = Once(
            kind="id-jag",
            id=f"{assertion.issuer} {assertion.id}",
            expires_at=assertion.expires_at + limits.CLOCK_SKEW,
            issued_at=assertion.issued_at,
        )
        if not await self._store.remember(once):
            raise SignatureRefused("it was used before")
        return assertion

    async def open(
        self, client: RegisteredClient, assertion: IdentityAssertion, asked: frozenset[Scope] | None
    ) -> Renewed:
        """Return an open session of the client agent of the person, for what everybody agrees on.

        Raises:
            NotAdmitted: the person is nobody here, revoked, or not let in.
            NothingGiven: nothing is left of what was asked for.
            Conflict: the client or its agent was revoked.
        """
        ceiling = self._ceiling()
        scope = self._given(client, assertion, asked, ceiling)
        person = await self._person(assertion)
        client = await self._keep(client)
        agent = await self._agent(client, person.name, ceiling)
        found = await self._found(client, agent, assertion, scope)
        return found if found is not None else await self._opened(client, agent, assertion, scope)

    def _given(
        self,
        client: RegisteredClient,
        assertion: IdentityAssertion,
        asked: frozenset[Scope] | None,
        ceiling: frozenset[Scope],
    ) -> frozenset[Scope]:
        """What provider, operator and client agree on; who says nothing of it leaves it to the others."""
        scope = common(self._trust.clients[client.id].scope, ceiling)
        for said in (assertion.scope, asked):
            if said is not None:
                scope = common(scope, said - {MINIMAL_SCOPE})
        if not scope:
            raise NothingGiven("assertion, request, configuration and tools have no scope in common")
        return frozenset(sorted(scope)[: limits.SCOPES - 1])

    async def _person(self, assertion: IdentityAssertion) -> Person:
        provider, claims = self._trust.provider, assertion.claims
        name, groups = claims.get(provider.person_claim), claims.get(provider.groups_claim)
        said = groups if isinstance(groups, list) else []
        vouched = Vouched(
            subject=assertion.subject,
            name=name if isinstance(name, str) else None,
            email_verified=claims.get("email_verified") is True,
            groups=frozenset(one for one in said if isinstance(one, str)),
            authentication=assertion.authentication
            or Authentication(at=_UNKNOWN, amr=(), issuer=provider.issuer),  # as stale as can be
        )
        return await (self._ungrouped if groups is None else self._people).person(vouched)

    async def _agent(self, client: RegisteredClient, person: PersonName, ceiling: frozenset[Scope]) -> Agent:
        """The agent that the client is for the person, as it will be registered: with what the gateway has now."""
        there = await self._store.client_agent(client.id, person)
        if there is not None and there.status != "active":
            raise Conflict(f"an operator stopped `{there.name}`")
        name = AgentName(f"{client.handle}@{person}") if there is None else there.name
        return Agent(name=name, owner=person, ceiling=ceiling, client=client.id)

    async def _found(
        self, client: RegisteredClient, agent: Agent, assertion: IdentityAssertion, scope: frozenset[Scope]
    ) -> Renewed | None:
        """The open session that an earlier assertion of the same sign-in gave for exactly this, if there is one."""
        now = self._clock()
        for grant in reversed(await self._store.client_grants(client.id, agent.owner, agent.name)):
            if not is_by_assertion(grant) or (grant.scope, grant.authentication) != (scope, assertion.authentication):
                continue
            newest = await self._store.newest_session(grant.id)
            if newest is None or newest[0].purpose != self._purpose:
                continue
            session, link = newest
            if not is_over(session, now) and link.status == "active":
                return Renewed(agent=agent, grant=grant, session=session, link=link)
        return None

    async def _opened(
        self, client: RegisteredClient, agent: Agent, assertion: IdentityAssertion, scope: frozenset[Scope]
    ) -> Renewed:
        """A grant that ends with its one session, and the session."""
        now = self._clock().replace(microsecond=0)
        grant = Grant(
            id=GrantId(new_id("g")),
            subject=agent.owner,
            agent=agent.name,
            scope=scope,
            tools=None,
            granted_at=now,
            expires_at=now + limits.SESSION_LIFETIME,
            client=client.id,
            authentication=assertion.authentication,
        )
        try:
            await self._store.authorize(agent, grant, None, self._event(client, grant, assertion))
            session, link = await self._sessions.start(grant, purpose=self._purpose, by=self._by)
        except (NotFound, DelegationError) as error:  # somebody was revoked in between
            raise Conflict(str(error)) from None
        return Renewed(agent=agent, grant=grant, session=session, link=link)

    @property
    def _purpose(self) -> str:
        """Of the sessions that assertions open: no other session has it."""
        return f"let in by {urlsplit(self._trust.provider.issuer).netloc}"[: limits.PURPOSE]

    @property
    def _by(self) -> str:
        return f"issuer:{self._trust.provider.issuer}"

    def _event(self, client: RegisteredClient, grant: Grant, assertion: IdentityAssertion) -> Event:
        shown = assertion.authentication
        fields: dict[str, Any] = {
            "summary": f"{assertion.issuer} lets {client.name} ({grant.agent}) act for {grant.subject}",
            "by": self._by,
            "grant": grant.id,
            "subject": f"user:{grant.subject}",
            "agent": f"agent:{grant.agent}",
            "client": client.id,
            "scope": sorted(grant.scope),
            "tools": None,
            "expires_at": grant.expires_at.isoformat(),
            "issuer": assertion.issuer,
            "assertion": assertion.id,
            **({} if shown is None else {"amr": list(shown.amr), "authenticated_at": shown.at.isoformat()}),
        }
        return Event(kind="grant", at=grant.granted_at, fields=fields)
