"""Consent: what a client asks a person for, what the person agrees to, and the grant and code that come of it.

Nothing is kept between the question and the answer: both are made of the client's own request, read anew each time, so
that what was agreed to is what was shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.authorization import AuthorizationCode, AuthorizationRequest, RegisteredClient
from mcp_authz.clients import Clients
from mcp_authz.enterprise import is_by_assertion
from mcp_authz.errors import AuthzError, Conflict, InputError
from mcp_authz.ids import new_id
from mcp_authz.model import Tool
from mcp_authz.passkey import SignIn
from mcp_authz.principals import Agent, AgentName, Grant, GrantId, PersonName
from mcp_authz.rules import consent as rules
from mcp_authz.rules.authorization_request import RequestRefused, answer_url, read_request, read_target
from mcp_authz.rules.consent import Offered
from mcp_authz.rules.keys import b64url, random_bytes
from mcp_authz.rules.redirect_uri import Place, is_registered, place
from mcp_authz.rules.scope import PERSONAL, Scope, common, covered
from mcp_authz.step_ups import StepUp, StepUps
from mcp_authz.store.ports import Clock, Event, Store

_SHOWN: Final = 200  # characters of redirect URIs that a person is shown
_JUST_NOW: Final = timedelta(minutes=1)  # how fresh a sign-in is that `prompt=login` asks for


class SignInAgain(AuthzError):
    """The person has to prove anew that it is them, before they can agree to this."""

    code = "stale_sign_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A request of a known client, whose answer may go where it says."""

    client: RegisteredClient
    request: AuthorizationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class SentBack:
    """A request that its own client is told is wrong; `url` is where that is said, and `why` what."""

    client: RegisteredClient
    url: str
    why: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a person is asked; everything that the client says of itself is as it says it."""

    client: RegisteredClient
    place: Place  # where the answer goes
    agent: AgentName  # who will act for the person
    stands_in: bool  # the agent is another one than the client: it was named as `requested_actor`
    offered: tuple[Offered, ...]  # what is new
    already: tuple[Offered, ...]  # what the person agreed to before, that still counts and is asked for again
    because: StepUp | None  # the call that sent the client back
    days: int  # how long it counts, at most
    deciding: Offered | None = None  # leave to answer held calls, which is asked for each time
    administering: tuple[Offered, ...] = ()  # leave to read, and to stop; the same
    decided_before: bool = False  # the person gave some of it before, and it counts still

    @property
    def is_remembered(self) -> bool:
        """Whether nothing new is asked for."""
        asked = any(one.chosen for one in (*self.offered, *self._personal)) or self.decided_before
        return bool(self.already) and not asked

    @property
    def choices(self) -> frozenset[Scope]:
        """All that the person can agree to."""
        return frozenset(one.scope for one in (*self.offered, *self.already, *self._personal))

    @property
    def _personal(self) -> tuple[Offered, ...]:
        return self.administering if self.deciding is None else (self.deciding, *self.administering)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the operator lets clients ask for, and in which words."""

    ceiling: frozenset[Scope] | None  # None: everything that the catalogue has
    words: Mapping[str, str]
    lifetime: timedelta
    is_held: Callable[[Tool], bool]
    has: Callable[[Tool], bool]  # whether its server has it, which it need not for every method of the protocol


class Consents:
    """Puts the question, and makes a grant of the answer."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        clients: Clients,
        tools: Callable[[], Iterable[Tool]],
        terms: Terms,
        step_ups: StepUps,
        issuer: str,
        resource: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._clients = clients
        self._tools = tools
        self._terms = terms
        self._step_ups = step_ups
        self._issuer = issuer
        self._resource = resource

    async def read(self, query: str) -> Asking | SentBack:
        """Return what the query asks, or where its client is told what is wrong with it.

        Raises:
            AuthzError: nobody can be told but the person: the client is not known, or the answer may not go there.
        """
        target = read_target(query)
        client = await self._clients.known(target.client)
        redirect_uri = _redirect_uri(client, target.redirect_uri)
        try:
            request = read_request(target, redirect_uri=redirect_uri, resource=self._resource)
        except RequestRefused as error:
            url = answer_url(
                redirect_uri, issuer=self._issuer, state=target.state, error=error.error, description=str(error)
            )
            return SentBack(client=client, url=url, why=str(error), place=place(redirect_uri))
        return Asking(client=client, request=request)

    async def question(self, asking: Asking, who: SignIn) -> Question:
        """Return what the person who is signed in is asked.

        Raises:
            SignInAgain: their sign-in is too old for what is asked, and they have no passkey to answer with.
            Conflict: the agent that would act was revoked, or there is none.
        """
        if who.credential is None:
            self._require_fresh(asking, who, taken=timedelta())
        return await self._question(asking, who.person)

    async def remembered(self, asking: Asking, who: SignIn) -> str | None:
        """The URL where the answer goes without a question, because the person agreed to all of this before.

        Only a client that proves who it is, and is answered at an https address of its own, is remembered: anybody can
        say that they are a public client, or listen on this computer. Nothing is ever made wider or longer like this,
        for a client that is another since, or of what somebody ended; and leave to answer held calls is never given.
        """
        client, request = asking.client, asking.request
        is_known = client.method == "private_key_jwt" and place(request.redirect_uri).kind == "web"
        if not is_known or request.prompt & {"consent", "login"} or request.max_age is not None:
            return None
        question = await self._question(asking, who.person)
        if not question.is_remembered or question.because is not None or question.stands_in:
            return None
        asking = await self._kept(asking)
        agent = await self._agent(asking, who.person)
        scope = frozenset(one.scope for one in question.already)
        earlier = await self._agreed_before(client, who.person, agent.name)
        if len(earlier) >= limits.GRANTS_PER_CLIENT:  # another one would end the oldest
            return None
        ends = [
            grant.expires_at
            for grant in earlier
            if all(covered(one, grant.scope) for one in scope) and await self._stands(grant, asking.client)
        ]
        return await self._give(asking, who, agent, scope, max(ends)) if ends else None

    async def agree(self, asking: Asking, who: SignIn, *, chosen: frozenset[Scope], days: int) -> str:
        """The person agreed to these of the offered scopes, for so many days; returns the URL where the answer goes.

        `who` is how they proved it: with a passkey that was shown for this very answer, its authentication is of now.

        Raises:
            SignInAgain: their sign-in is too old for what is asked.
            InputError: more was chosen than was offered, or for longer.
            Conflict: the person, the client or the agent was revoked.
        """
        self._require_fresh(asking, who, taken=limits.CONSENT_TIME)
        asking = await self._kept(asking)
        question = await self._question(asking, who.person)
        if not chosen <= question.choices:
            raise InputError("more was chosen than was offered; open the page again")
        if not 1 <= days <= question.days:
            raise InputError(f"choose between 1 and {question.days} days")
        agent = await self._agent(asking, who.person)
        url = await self._give(asking, who, agent, chosen, self._now() + timedelta(days=days))
        self._step_ups.done(agent.name)
        return url

    async def refuse(self, asking: Asking, who: SignIn) -> str:
        """The person does not agree, on record; returns the URL where the client is told so."""
        agent = await self._agent(asking, who.person)
        self._step_ups.done(agent.name)
        summary = f"{who.person} did not let {asking.client.name} act for them"
        fields = {**self._fields(asking, who, agent), "decision": "deny"}
        await self._store.append(_event(self._now(), who.person, summary, fields))
        request = asking.request
        return answer_url(
            request.redirect_uri,
            issuer=self._issuer,
            state=request.state,
            error="access_denied",
            description="the person did not agree",
        )

    def in_words(self, scope: frozenset[Scope]) -> tuple[Offered, ...]:
        """What a person agreed to, as they were shown it."""
        return self._offer(scope, asked=True)

    def _require_fresh(self, asking: Asking, who: SignIn, *, taken: timedelta) -> None:
        """Return only if the sign-in is as fresh as client and policy want it; `taken` is time for the answer."""
        wanted = [] if asking.request.max_age is None else [asking.request.max_age]
        if "login" in asking.request.prompt:
            wanted.append(_JUST_NOW)
        because = self._step_ups.of(_client_agent(asking.client, who.person))
        if because is not None and because.max_age is not None:
            wanted.append(because.max_age)
        if wanted and self._clock() - who.authentication.at > max(min(wanted), _JUST_NOW) + taken:
            raise SignInAgain("sign in once more: what is asked here needs to know that it is you, now")

    async def _question(self, asking: Asking, person: PersonName) -> Question:
        agent = await self._agent(asking, person)
        before = await self._agreed_before(asking.client, person, agent.name)
        given = frozenset(scope for grant in before for scope in grant.scope)
        asked = rules.to_ask(asking.request.scope, self._bounded(agent.ceiling))
        if asking.request.scope is None:  # the person chooses, and is not bothered with what would do nothing
            asked = rules.useful(asked, self._tools(), has=self._terms.has)
        already = common(asked, given)
        new = frozenset(scope for scope in asked if not covered(scope, given))
        is_exact = asking.request.scope is not None
        return Question(
            client=asking.client,
            place=place(asking.request.redirect_uri),
            agent=agent.name,
            stands_in=asking.request.actor is not None,
            offered=self._offer(new, asked=is_exact) if is_exact or not already else _unchosen(self._offer(new)),
            already=self._offer(already, asked=True),
            because=self._step_ups.of(agent.name),
            days=self._terms.lifetime.days,
            # It goes to a client of the person's own, and to no agent that acts in its place.
            deciding=None if agent.client is None else rules.to_decide(asking.request.scope, self._terms.words),
            administering=() if agent.client is None else rules.to_administer(asking.request.scope, self._terms.words),
            decided_before=not given.isdisjoint(PERSONAL),
        )

    def _bounded(self, ceiling: frozenset[Scope]) -> frozenset[Scope]:
        """What there is of it for a client, also where an agent that has more acts in its place."""
        return ceiling if self._terms.ceiling is None else common(ceiling, self._terms.ceiling)

    def _offer(self, scopes: frozenset[Scope], *, asked: bool = False) -> tuple[Offered, ...]:
        terms = self._terms
        return rules.offer(scopes, self._tools(), words=terms.words, is_held=terms.is_held, asked=asked)

    async def _kept(self, asking: Asking) -> Asking:
        """The request, by a client that the store knows: its short name is its own from now on."""
        return replace(asking, client=await self._clients.keep(asking.client))

    async def _agent(self, asking: Asking, person: PersonName) -> Agent:
        """Who would act, as they will be registered: with what the gateway has now."""
        if asking.request.actor is not None:
            actor = await self._store.agent(asking.request.actor)
            if actor is None or actor.status != "active" or actor.client is not None or actor.parent is not None:
                raise Conflict(f"there is no agent `{asking.request.actor}` that could act in the client's place")
            return actor
        there = await self._store.client_agent(asking.client.id, person)
        if there is not None and there.status != "active":
            raise Conflict(f"an operator stopped `{there.name}`; only they can let {asking.client.name} act for you")
        ceiling = self._terms.ceiling if self._terms.ceiling is not None else rules.everything(self._tools())
        return Agent(
            name=_client_agent(asking.client, person) if there is None else there.name,
            owner=person,
            ceiling=ceiling,
            client=asking.client.id,
        )

    async def _give(
        self, asking: Asking, who: SignIn, agent: Agent, scope: frozenset[Scope], expires_at: datetime
    ) -> str:
        """The grant and its code are there; returns the URL that brings the code to the client."""
        now, request = self._now(), asking.request
        grant = Grant(
            id=GrantId(new_id("g")),
            subject=who.person,
            agent=agent.name,
            scope=scope,
            tools=None,
            granted_at=now,
            expires_at=min(expires_at, now + limits.GRANT_LIFETIME),
            client=asking.client.id,
            authentication=who.authentication,
        )
        text = b64url(random_bytes(32))
        code = AuthorizationCode(
            digest=hashlib.sha256(text.encode()).digest(),
            grant=grant.id,
            client=asking.client.id,
            agent=agent.name,
            redirect_uri=request.redirect_uri,
            challenge=request.challenge,
            scope=scope,
            confirmation=request.confirmation,
            made_at=now,
            expires_at=now + limits.AUTHORIZATION_CODE,
        )
        summary = f"{who.person} lets {asking.client.name} ({agent.name}) act for them"
        fields = {
            **self._fields(asking, who, agent),
            "grant": grant.id,
            "scope": sorted(scope),
            "tools": None,
            "expires_at": grant.expires_at.isoformat(),
        }
        await self._store.authorize(agent, grant, code, _event(now, who.person, summary, fields))
        await self._end_oldest(asking.client, who.person, agent.name)
        return answer_url(request.redirect_uri, issuer=self._issuer, state=request.state, code=text)

    async def _agreed_before(self, client: RegisteredClient, person: PersonName, agent: AgentName) -> tuple[Grant, ...]:
        """What the person agreed to, oldest first; what their company's provider gave the client is not their word."""
        grants = await self._store.client_grants(client.id, person, agent)
        return tuple(grant for grant in grants if not is_by_assertion(grant))

    async def _stands(self, grant: Grant, client: RegisteredClient) -> bool:
        """Whether it was agreed to of this client as it is now, nobody ended what came of it, and it lasts a while.

        What lasts no longer than one session would pass for what a company's provider gave.
        """
        if grant.expires_at - self._now() <= limits.SESSION_LIFETIME:
            return False
        newest = await self._store.newest_session(grant.id)
        is_ended = newest is not None and any(one.status != "active" for one in newest)
        return grant.granted_at >= client.registered_at.replace(microsecond=0) and not is_ended

    async def _end_oldest(self, client: RegisteredClient, person: PersonName, agent: AgentName) -> None:
        grants = await self._agreed_before(client, person, agent)
        for grant in grants[: -limits.GRANTS_PER_CLIENT]:
            summary = f"grant {grant.id} ended: {agent} was given newer ones"
            fields = {"summary": summary, "by": f"user:{person}", "of": "grant", "name": grant.id}
            await self._store.revoke("grant", grant.id, Event(kind="revocation", at=self._now(), fields=fields))

    def _fields(self, asking: Asking, who: SignIn, agent: Agent) -> dict[str, Any]:
        shown = who.authentication
        return {
            "subject": f"user:{who.person}",
            "agent": f"agent:{agent.name}",
            "client": asking.client.id,
            "redirect_uri": asking.request.redirect_uri.partition("?")[0],
            "amr": list(shown.amr),
            "authenticated_at": shown.at.isoformat(),
            **({} if shown.issuer is None else {"issuer": shown.issuer}),
        }

    def _now(self) -> datetime:
        return self._clock().replace(microsecond=0)  # as everything that is signed of it counts time


def _redirect_uri(client: RegisteredClient, asked: str | None) -> str:
    if asked is None:
        if len(client.redirect_uris) != 1 or place(client.redirect_uris[0]).kind == "loopback":
            raise InputError("the request does not say where its answer goes (`redirect_uri`)")
        return client.redirect_uris[0]
    if not is_registered(client.redirect_uris, asked):
        raise InputError(
            f"the answer would go where {client.name} is not registered to be; "
            f"it is at `{'`, `'.join(client.redirect_uris)[:_SHOWN]}`, letter by letter"
        )
    return asked


def _client_agent(client: RegisteredClient, person: PersonName) -> AgentName:
    return AgentName(f"{client.handle}@{person}")


def _unchosen(offered: tuple[Offered, ...]) -> tuple[Offered, ...]:
    """What could be had, too: nobody asked for it."""
    return tuple(replace(one, chosen=False) for one in offered)


def _event(at: datetime, person: PersonName, summary: str, fields: Mapping[str, Any]) -> Event:
    return Event(kind="grant", at=at, fields={"summary": summary, "by": f"user:{person}", **fields})
