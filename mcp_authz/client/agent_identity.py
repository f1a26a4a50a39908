"""An agent's identity: its name and its own key, with which it signs in, delegates and proves its calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from mcp_authz import limits
from mcp_authz.client import delegation
from mcp_authz.client.asking import Applicant, Clock, now, own_session, signed_chain
from mcp_authz.client.conditions import Conditions, Tools, tools_map
from mcp_authz.client.discovery import endpoint, looking_up
from mcp_authz.client.enrolling import enrolled
from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.client.signing import Signer
from mcp_authz.client.talk import Talk, carry, line
from mcp_authz.errors import DelegationError, InputError, KeyRefused
from mcp_authz.rules import link_id
from mcp_authz.rules.call_proof import INVOCATION
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.signed_link import SignedLink, parse_chain, read_unverified

if TYPE_CHECKING:
    from mcp_authz.client.auth import GatewayAuth

_PART: Final = "[a-z0-9][a-z0-9-]*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})?")


class Narrowed(TypedDict, total=False):
    """How much less a child gets than its parent's chain gives; each as in `AgentIdentity.delegate`."""

    scope: str | None
    tools: Tools | None
    where: Conditions
    minutes: float
    calls: int | None
    reason: str
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """An agent, `coder`, or a child of one, `coder/worker-7`, with its private key, which is never printed."""

    name: str
    key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None or len(self.name) > 2 * limits.NAME:
            raise InputError(f"`{self.name}` is no name of an agent: a-z, 0-9 and, not first, a hyphen")

    @classmethod
    def generate(cls, name: str) -> AgentIdentity:
        """Return an identity with a new key, which is in memory only until it is saved.

        Raises:
            InputError: the name is none.
        """
        return cls(name=name, key=PrivateKey.generate())

    @classmethod
    def load(cls, path: str | Path, *, name: str, passphrase: str | None = None) -> AgentIdentity:
        """Return the identity whose key is in the file, which nobody but its owner can read.

        Raises:
            KeyRefused: others can read it, it is no Ed25519 key, or its passphrase is missing or another.
            ConfigError: the file cannot be read.
            InputError: the name is none.
        """
        return cls(name=name, key=load_key(Path(path), passphrase))

    def save(self, path: str | Path, *, passphrase: str | None = None, replace: bool = False) -> None:
        """The key is in the file, whole, with mode 0600; with a passphrase, nobody can use it who does not know that.

        Raises:
            Conflict: there is something at `path`, and `replace` was not asked for.
            ConfigError: it cannot be written.
        """
        save_key(Path(path), self.key, passphrase, replace=replace)

    @property
    def public_key(self) -> PublicKey:
        """The key that others know the agent by."""
        return self.key.public

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JWK (RFC 8037): what a delegator needs to know, and nothing secret."""
        return self.key.public.jwk

    @property
    def thumbprint(self) -> str:
        """The public key's thumbprint (RFC 7638)."""
        return self.key.public.thumbprint

    def auth(
        self,
        url: str,
        *,
        subject: str | None = None,
        session: str | None = None,
        chain: str | None = None,
        scope: str | None = None,
        sign_calls: bool = True,
        clock: Clock = now,
        verify: SSLContext | None = None,
    ) -> GatewayAuth:
        """Return what makes any httpx2 client this agent at the gateway; `GatewayAuth` says what of.

        `subject` (`user:NAME`; `agent:NAME` where it works for itself) or `session` says which of the agent's own
        sessions is meant, or `chain` is one that was given to it. Without `scope` a token has all that its link gives.

        Raises:
            InputError: the URL is none, or one by which a token would travel in the open; or a chain and a session.
            DelegationError, SignatureRefused: the chain was given to another key, or cannot be read.
        """
        from mcp_authz.client.auth import GatewayAuth, Wanted

        if chain is not None and (subject is not None or session is not None):
            raise InputError("a chain says itself for whom and in which session it is; leave those out")
        wanted = Wanted(subject=subject, session=session, chain=chain, scope=_scopes(scope))
        return GatewayAuth(self, url, wanted, sign_calls=sign_calls, clock=clock, verify=verify)

    async def chain(
        self,
        url: str,
        *,
        subject: str | None = None,
        session: str | None = None,
        clock: Clock = now,
        verify: SSLContext | None = None,
    ) -> str:
        """Return the signed chain of the agent's own session at the gateway, from which it delegates.

        Raises:
            DelegationError: it has no open session there, or several and none was named.
            SignInRefused: the gateway does not let the agent in.
            NoAnswer: no gateway answers there.
        """
        resource, claims = endpoint(url), _named(session=session, subject=subject)
        async with line(resource, verify) as http:
            return await carry(http, self._fetching(resource, claims, clock))

    def delegate(
        self,
        chain: str,
        *,
        to: AgentIdentity | PublicKey | Mapping[str, Any],
        child: str = "",
        scope: str | None = None,
        tools: Tools | None = None,
        where: Conditions = (),
        minutes: float = 60,
        calls: int | None = None,
        depth: int = 0,
        reason: str = "",
        at: datetime | None = None,
    ) -> str:
        """Return the chain with one more link, by which this agent gives some of what it has to the holder of `to`.

        Nothing is sent: the gateway says what it has to say when the chain is used. What is not narrowed is as in the
        last link. `depth` is how many further steps the delegate may make, `calls` how many calls it has.

        Raises:
            DelegationError: it would give more than the chain's last link has, or that link was given to another key.
            ConstraintError, ScopeError, KeyRefused, SignatureRefused: one of the parts cannot be read.
        """
        had = leaf(chain).tools
        return delegation.delegate(
            chain,
            self.key,
            to=_public(to),
            child=child,
            scope=scope,
            tools=tools_map(tools, where, had),
            lifetime=timedelta(minutes=minutes),
            max_calls=calls,
            depth=depth,
            reason=reason,
            at=at,
        )

    def child(self, name: str, chain: str, **narrowed: Unpack[Narrowed]) -> tuple[AgentIdentity, str]:
        """Return a child of this agent with a key in memory, and the chain by which it works; see `delegate`.

        The gateway knows `coder/worker-7` from the chain's first use until the link ends, or its parent does.

        Raises:
            InputError: the name is none, or this agent is a child itself.
            DelegationError, ConstraintError, ScopeError, SignatureRefused: as `delegate`.
        """
        if "/" in self.name or "/" in name:
            raise InputError(f"agent `{self.name}` cannot have a child `{name}`: children have none of their own")
        born = AgentIdentity.generate(f"{self.name}/{name}")
        return born, self.delegate(chain, to=born, child=name, **narrowed)

    def sign_call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        url: str,
        link: str | None = None,
        chain: str | None = None,
        at: datetime | None = None,
    ) -> dict[str, str]:
        """Return what belongs in the call's `_meta`: the proof that this agent makes exactly this call, just now.

        `link` is the one that the agent is signed in for (`GatewayAuth.link`); a `chain` names its last one. A proof
        counts once.

        Raises:
            InputError: the arguments have no canonical form, or no link is named.
        """
        if (link is None) == (chain is None):
            raise InputError("name the link that the call is made by: link=, as of `auth.link`, or chain=")
        meant = link if chain is None else link_id.link_id(leaf(chain).id)
        signer = Signer(key=self.key, link=str(meant), resource=endpoint(url))
        params = {"name": tool, "arguments": dict(arguments)}
        return {INVOCATION: signer.proof("tools/call", params, at=at or now())}

    async def enrol(self, url: str, code: str, *, clock: Clock = now, verify: SSLContext | None = None) -> None:
        """The gateway knows this agent by this key; save the identity first, a key that is lost cannot be used.

        `code` is the one-time code that the operator got from `mcp-authz agent code NAME`.

        Raises:
            SignInRefused: the code is wrong, used or expired, or the key is somebody's already.
            NoAnswer: no gateway answers there.
        """
        resource = endpoint(url)
        async with line(resource, verify) as http:
            await carry(http, self._enrolling(resource, code, clock))

    async def rotate(self, url: str, path: str | Path, *, verify: SSLContext | None = None) -> AgentIdentity:
        """Return the agent with a new key, which is in the file and counts; this one stops signing in.

        What was issued to the old key counts for a while longer. The new key is on disk, beside the old one, before
        the gateway hears of it: whatever breaks, the next call of this finds out which one counts.

        Raises:
            AuthzError: the gateway takes no other key, or cannot be asked; or the file is not this agent's key.
        """
        from mcp_authz.client import rotation

        resource, file = endpoint(url), Path(path)
        rotation.require_open(file)
        async with rotation.alone(file), line(resource, verify) as http:
            if not rotation.draft_of(file).exists() and load_key(file).public != self.public_key:
                raise KeyRefused(f"`{path}` holds another key than agent `{self.name}` has here; load it from there")
            door = await carry(http, looking_up(resource))
            return AgentIdentity(name=self.name, key=await rotation.rotate(http, door, self.name, file))

    def _enrolling(self, resource: str, code: str, clock: Clock) -> Talk[None]:
        door = yield from looking_up(resource)
        who = Applicant(name=self.name, key=self.key, door=door, clock=clock)
        yield from enrolled(who, code)

    def _fetching(self, resource: str, claims: Mapping[str, str], clock: Clock) -> Talk[str]:
        door = yield from looking_up(resource)
        who = Applicant(name=self.name, key=self.key, door=door, resource=resource, clock=clock)
        token = yield from own_session(who, claims, None)
        if token.session is None:
            which = "no open session" if not claims else f"no open session with {dict(claims)}"
            advice = "start one, `mcp-authz session start`, or name one of several: session=, subject="
            raise DelegationError(f"agent `{self.name}` has {which} at {resource} that it could delegate; {advice}")
        return (yield from signed_chain(who, token))


def leaf(chain: str) -> SignedLink:
    """Return what the last link of a chain says; not verified.

    Raises:
        SignatureRefused: it cannot be read.
    """
    return read_unverified(parse_chain(chain))[-1]


def _public(key: AgentIdentity | PublicKey | Mapping[str, Any]) -> PublicKey:
    match key:
        case AgentIdentity():
            return key.public_key
        case PublicKey():
            return key
        case _:
            return PublicKey.from_jwk(key)


def _named(**claims: str | None) -> dict[str, str]:
    return {name: value for name, value in claims.items() if value is not None}


def _scopes(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(text.split())
