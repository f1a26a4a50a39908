"""Client authentication by `private_key_jwt` (RFC 7523 sections 2.2 and 3, RFC 7523bis): an agent proves its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from mcp_authz import limits
from mcp_authz.agents import current_keys
from mcp_authz.errors import SignatureRefused
from mcp_authz.hosted import HostedAgents
from mcp_authz.oauth.child import Children
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.refusal import invalid_client
from mcp_authz.oauth.token_types import TOKEN_EXCHANGE
from mcp_authz.principals import Agent, AgentName, Key, Thumbprint
from mcp_authz.rules import client_metadata, jose
from mcp_authz.rules.jose import UnverifiedJws, Verifier
from mcp_authz.rules.keys import PublicKey
from mcp_authz.store.ports import Clock, Once, Store

METHOD: Final[Literal["private_key_jwt"]] = "private_key_jwt"
AGENT_GRANT_TYPES: Final = frozenset({"client_credentials", TOKEN_EXCHANGE, "authorization_code"})
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TYP: Final = "client-authentication+jwt"  # RFC 7523bis; stock clients send `JWT`


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An agent that has just proved its key, as Authlib's grants want to see a client."""

    agent: Agent
    key: Thumbprint
    session: str | None = None  # what the assertion names, if anything
    delegation: str | None = None
    subject: str | None = None

    @property
    def is_proved(self) -> bool:
        """Whether it is known to be this agent: always, or there would be no such client."""
        return True

    @property
    def recorded(self) -> dict[str, Any]:
        """How a record names it."""
        return {"actor": f"agent:{self.agent.name}", "key": self.key}

    @property
    def label(self) -> str:
        """How a sentence names it."""
        return self.agent.name

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the client may use the grant: an agent has its key, and renews nothing."""
        return grant_type in AGENT_GRANT_TYPES


class ClientDoor:
    """Lets in agents that prove their current key by a fresh assertion; each assertion counts once."""

    def __init__(self, *, store: Store, issuer: str, clock: Clock, hosted: HostedAgents, children: Children) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._hosted = hosted
        self._children = children

    async def ready(self, form: Form) -> None:
        """What the signer's host says of its keys was read, where letting the signer in may need that.

        Whoever calls `enter` has this done before, while they hold nothing that others wait for: a host can be slow.
        What is wrong with the form, `enter` says.
        """
        try:
            assertion = jose.read(form.get("client_assertion", ""))
            agent = await self._agent(jose.require_text(assertion.claims, "sub", limits.METADATA_URL))
        except SignatureRefused:
            return
        if agent is None or agent.metadata_url is None:
            return
        if not _signers(assertion, await self._hosted.keys_of(agent)):
            await self._hosted.read_again(agent)

    async def is_for(self, form: Form) -> bool:
        """Whether the form's assertion says that it is an agent's; an agent's name is no other client's."""
        try:
            assertion = jose.read(form.get("client_assertion", ""))
            return await self._agent(jose.require_text(assertion.claims, "sub", limits.METADATA_URL)) is not None
        except SignatureRefused:
            return False

    async def enter(self, form: Form, authorization: str | None, *, chain: str | None = None) -> Client:
        """Return the client that signed the form's assertion; unknown, revoked and forged are answered alike.

        A child that is nobody yet enters where it exchanges the `chain` that names it, and nowhere else.

        Raises:
            Refusal: there is no assertion, or it does not prove a current key of an active agent.
        """
        if authorization is not None or "client_secret" in form:
            raise invalid_client("another authentication method")
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            raise invalid_client("no client assertion")
        try:
            return await self._proved(jose.read(form["client_assertion"]), form, chain)
        except SignatureRefused as error:
            raise invalid_client("the assertion is not valid", str(error)) from None

    async def _proved(self, assertion: UnverifiedJws, form: Form, chain: str | None) -> Client:
        claims = assertion.claims
        name = jose.require_text(claims, "sub", limits.METADATA_URL)
        agent, key = await self._signer(name, assertion, chain)
        if claims.get("iss") != name or form.get("client_id") not in (None, name):
            raise invalid_client("issuer, subject and client are not the same")
        if claims.get("aud") not in (self._issuer, [self._issuer]):
            raise invalid_client("the assertion is for another audience")
        expires_at = require_times(claims, self._clock())
        if agent.status != "active":
            raise invalid_client("the agent is revoked")
        once = Once(
            kind="assertion",
            id=f"{agent.name}:{jose.require_text(claims, 'jti', limits.ID_CHARACTERS)}",
            expires_at=expires_at + limits.CLOCK_SKEW,
            issued_at=issued_at(claims, expires_at),
        )
        client = Client(
            agent=agent,
            key=key,
            session=_optional_text(claims, "session"),
            delegation=_optional_text(claims, "delegation"),
            subject=_optional_text(claims, "subject"),
        )
        if not await self._store.remember(once):
            raise invalid_client("the assertion was used before")
        if agent.metadata_url is not None and not await self._hosted.prove(agent, key):
            raise invalid_client("the key was declared by another agent's document since")
        return client

    async def _signer(self, name: str, assertion: UnverifiedJws, chain: str | None) -> tuple[Agent, Thumbprint]:
        """The agent with the key that signed: a current one of it, or the one that a child's parent gives it now."""
        agent = await self._agent(name)
        if agent is not None and not await self._children.has_ended(agent):
            for key in _signers(assertion, await self._hosted.known_keys_of(agent)):
                return agent, key.thumbprint
        named = None
        if chain is not None:
            named = await self._children.named(AgentName(name), chain, lambda key: is_signed_by(key, assertion))
        if named is not None:
            return named.child, Thumbprint(named.key.thumbprint)
        raise invalid_client("no such agent" if agent is None else "not signed by a current key of the agent")

    async def _agent(self, name: str) -> Agent | None:
        """The agent of this name, or of this URL: that of its document here, or where it is hosted."""
        here = client_metadata.client_id(self._issuer, AgentName(""))
        if name.startswith(here):
            return await self._store.agent(AgentName(name.removeprefix(here)))
        if name.startswith("https://"):
            return await self._store.agent_at(name)
        return await self._store.agent(AgentName(name))


def _signers(assertion: UnverifiedJws, keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """Of the current keys the one that signed; one that a rotation retires signs nothing new."""
    return tuple(key for key in current_keys(keys) if is_signed_by(PublicKey.from_raw(key.raw), assertion))


def is_signed_by(key: Verifier, assertion: UnverifiedJws) -> bool:
    """Whether the key signed the assertion, and as nothing else than an assertion."""
    typ = _TYP if str(assertion.header.get("typ")).lower().removeprefix("application/") == _TYP else None
    try:
        assertion.verify(key, typ=typ)
    except SignatureRefused:
        return False
    return True


def require_times(claims: Mapping[str, Any], now: datetime) -> datetime:
    """Return when the assertion expires; like `jose.require_times`, but `iat` may be left out (RFC 7523 section 3).

    Raises:
        SignatureRefused: a time is missing, or it is not of now.
    """
    expires_at = jose.require_time(claims, "exp")
    if expires_at <= now - limits.CLOCK_SKEW:
        raise SignatureRefused("it has expired")
    if expires_at > now + limits.ASSERTION_LIFETIME + limits.CLOCK_SKEW:
        raise SignatureRefused("it lives too long")
    for name in ("iat", "nbf"):
        if name in claims and jose.require_time(claims, name) > now + limits.CLOCK_SKEW:
            raise SignatureRefused(f"its `{name}` is in the future")
    return expires_at


def issued_at(claims: Mapping[str, Any], expires_at: datetime) -> datetime:
    """Return when the assertion was made; of one that does not say, the earliest that it can have been shown."""
    if "iat" in claims:
        return jose.require_time(claims, "iat")
    return expires_at - limits.ASSERTION_LIFETIME - limits.CLOCK_SKEW


def _optional_text(claims: Mapping[str, Any], name: str) -> str | None:
    return jose.require_text(claims, name, limits.ID_CHARACTERS) if name in claims else None
