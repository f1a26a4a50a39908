"""People as an OpenID provider knows them: who somebody that it vouches for is here, and in which groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, Final

from mcp_authz.agents import person_name
from mcp_authz.authorization import Identity
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound
from mcp_authz.principals import Authentication, Person, PersonName
from mcp_authz.rules.display import visible
from mcp_authz.store.ports import Clock, Event, EventKind, Store

SUBJECT: Final = 255  # characters of `sub` (OpenID Connect Core section 2)


class NotAdmitted(AuthzError):
    """The provider vouches for somebody whom the gateway does not let in."""

    code = "not_admitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An OpenID provider as the operator configured it, and what its word counts for here."""

    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    name: str  # what the button calls it
    scopes: tuple[str, ...] = ("openid", "profile")
    person_claim: str = "preferred_username"
    email_domain: str | None = None  # whose e-mail addresses are names, by the part before the @
    groups_claim: str = "groups"
    groups: Mapping[str, str] = field(default_factory=dict)  # its group -> the group here
    allowed_groups: frozenset[str] = frozenset()  # its groups of which a person must be in one; empty: anybody
    provision: bool = True  # whether somebody new is registered when they sign in


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What a provider said of a person, signed for this gateway and verified just now.

    The edge that verified it is the only one to make one.
    """

    subject: str  # `sub`: the one claim that the provider gives to nobody else (OpenID Connect Core section 2)
    name: str | None  # the claim that people's names are made of, as it came
    email_verified: bool
    groups: frozenset[str]
    authentication: Authentication


class PeopleElsewhere:
    """Knows people by issuer and subject alone: a name never makes anybody somebody who is here already."""

    def __init__(self, store: Store, clock: Clock, provider: Provider) -> None:
        self._store = store
        self._clock = clock
        self._provider = provider

    async def person(self, vouched: Vouched) -> Person:
        """Who this is here, in the groups that the provider gives; somebody new is registered where that is allowed.

        Raises:
            NotAdmitted: they are in no group that may come in, revoked, or nobody here and may not become somebody.
        """
        allowed = self._provider.allowed_groups
        if allowed and not allowed & vouched.groups:
            raise NotAdmitted(f"{self._provider.name} knows you, but you are in no group that may sign in here")
        known = await self._store.identity(self._provider.issuer, vouched.subject)
        name = known.person if known is not None else await self._registered(vouched)
        person = await self._store.person(name)
        if person is None or person.status != "active":
            raise NotAdmitted(f"`{name}` was revoked here; ask whoever runs this gateway")
        return await self._with_groups(person, vouched)

    async def _registered(self, vouched: Vouched) -> PersonName:
        """The name under which the new person is here from now on."""
        name = self._name(vouched)
        if not self._provider.provision:
            raise NotAdmitted(f"nobody is registered here for you; {self._how_to_link(name, vouched)}")
        person = Person(name=name, groups=self._mapped(vouched))
        identity = Identity(issuer=self._provider.issuer, subject=vouched.subject, person=name, linked_at=self._clock())
        summary = f"{name} is registered, as {self._provider.issuer} knows them"
        event = self._event("enrolment", summary, name, subject=vouched.subject, groups=sorted(person.groups))
        try:
            await self._store.link_identity(identity, person, event)
        except Conflict:
            # Two first sign-ins at once: the other one registered the same person.
            meanwhile = await self._store.identity(self._provider.issuer, vouched.subject)
            if meanwhile is None:
                raise NotAdmitted(
                    f"there is somebody called `{name}` here, and it is not known to be you; "
                    f"{self._how_to_link(name, vouched)}"
                ) from None
            return meanwhile.person
        return name

    def _name(self, vouched: Vouched) -> PersonName:
        """The name that the provider's claim makes: the claim in lower case, and nothing guessed."""
        told, here = vouched.name or "", self._provider.email_domain
        local, at, domain = told.lower().partition("@")
        try:
            # In lower case some other letters become ASCII ones: the provider tells such a name from the plain one.
            if told.isascii() and not at:
                return person_name(local)
            if told.isascii() and here is not None and domain == here.lower() and self._may_name(vouched):
                return person_name(local)
        except InputError:
            pass
        raise NotAdmitted(
            f"{self._provider.name} {self._calls(told)}, which makes no name here; {self._how_to_link('NAME', vouched)}"
        )

    def _calls(self, told: str) -> str:
        return f"calls you `{visible(told[:64])}`" if told else f"does not say `{self._provider.person_claim}` of you"

    def _may_name(self, vouched: Vouched) -> bool:
        # Anybody may write any address into a profile; one that the provider has not verified is nobody's.
        return vouched.email_verified or self._provider.person_claim != "email"

    def _how_to_link(self, name: str, vouched: Vouched) -> str:
        return (
            "whoever runs this gateway can run `mcp-authz user link "
            f"{name} --issuer {quote(self._provider.issuer)} --subject {quote(visible(vouched.subject))}`"
        )

    def _mapped(self, vouched: Vouched) -> frozenset[str]:
        return frozenset(ours for theirs, ours in self._provider.groups.items() if theirs in vouched.groups)

    async def _with_groups(self, person: Person, vouched: Vouched) -> Person:
        """The person in the groups of this sign-in: those that the table names are the provider's, all others stay."""
        groups = (person.groups - frozenset(self._provider.groups.values())) | self._mapped(vouched)
        if groups != person.groups:
            summary = f"{person.name} is now in {', '.join(sorted(groups)) or 'no group'}, as their provider says"
            event = self._event("administration", summary, person.name, groups=sorted(groups))
            await self._store.set_groups(person.name, groups, event)
        return Person(name=person.name, groups=groups)

    def _event(self, kind: EventKind, summary: str, person: PersonName, **more: Any) -> Event:
        issuer = self._provider.issuer
        fields = {"summary": summary, "by": f"issuer:{issuer}", "person": f"user:{person}", "issuer": issuer, **more}
        return Event(kind=kind, at=self._clock(), fields=fields)


async def link(store: Store, clock: Clock, identity: Identity, *, by: str) -> None:
    """The provider's subject is this person from now on, who keeps every other way in.

    Raises:
        InputError: issuer or subject is none.
        NotFound: there is no such person.
        Conflict: they are revoked, or the subject is somebody here already.
    """
    if not identity.issuer.startswith(("https://", "http://")) or not 0 < len(identity.subject) <= SUBJECT:
        raise InputError("give the provider's issuer, an https URL, and the subject that it gave the person")
    if await store.person(identity.person) is None:
        raise NotFound(f"there is no person `{identity.person}`")
    fields = {
        "summary": f"{identity.person} may sign in as {identity.issuer} knows them",
        "by": by,
        "person": f"user:{identity.person}",
        "issuer": identity.issuer,
        "subject": identity.subject,
    }
    await store.link_identity(identity, None, Event(kind="enrolment", at=clock(), fields=fields))
