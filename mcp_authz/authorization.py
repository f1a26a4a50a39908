"""The nouns by which software acts for a person who agreed to it: clients, requests, codes, tokens, identities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from mcp_authz.principals import AgentName, ClientId, GrantId, PersonName, Status, Thumbprint
from mcp_authz.rules.scope import Scope

ClientKind = Literal["registered", "document", "dynamic"]
"""How it is known: an operator registered it, its id is the URL of its document, or it registered itself (RFC 7591)."""

ClientMethod = Literal["none", "private_key_jwt", "client_secret_basic", "client_secret_post"]
"""How it authenticates at the token endpoint (RFC 7591 section 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredClient:
    """An OAuth client: a piece of software that people let act for them; as such it is a client agent of each."""

    id: ClientId
    handle: str  # its short name here, given once: the agent of alice is `cursor@alice`
    name: str  # as it calls itself: never believed, always shown beside where it is from
    kind: ClientKind
    redirect_uris: tuple[str, ...]
    method: ClientMethod = "none"
    jwks: Mapping[str, Any] | None = None  # the public keys it authenticates with (`private_key_jwt`)
    secret: bytes | None = field(default=None, repr=False)  # SHA-256 of its secret: 256 random bits
    registered_at: datetime  # as it is: a document that says something else begins anew
    read_at: datetime | None = None  # when its document was read last
    status: Status = "active"

    @property
    def is_public(self) -> bool:
        """Whether it proves nothing of itself: anybody can say that they are this client (RFC 6749 section 2.1)."""
        return self.method == "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """What a client asks a person for, once its form is known to be sound (RFC 6749 section 4.1.1, RFC 7636, RFC 8707).

    Whether there is such a client, and whether the answer may go where it says, is not known yet.
    """

    client: ClientId
    redirect_uri: str
    challenge: str  # of PKCE, S256: 43 characters of base64url
    state: str | None = None
    scope: frozenset[Scope] | None = None  # None: the client leaves it to the person
    prompt: frozenset[str] = frozenset()  # of `none`, `login` and `consent` (OpenID Connect Core section 3.1.2.1)
    max_age: timedelta | None = None  # how long ago the person may have signed in (RFC 9470 section 4)
    confirmation: Thumbprint | None = None  # `dpop_jkt`
    actor: AgentName | None = None  # `requested_actor`: the agent that is to act, in the client's place


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationCode:
    """What a client exchanges for a person's grant, once (RFC 6749 section 4.1); its text is kept by nobody."""

    digest: bytes  # SHA-256 of the code, 32 bytes
    grant: GrantId
    client: ClientId
    agent: AgentName  # who will act: the client agent, or the agent that the client named as `requested_actor`
    redirect_uri: str  # exactly as it was asked for
    challenge: str  # of PKCE, S256 (RFC 7636)
    scope: frozenset[Scope]  # what the token carries: all that the person agreed to
    confirmation: Thumbprint | None = None  # `dpop_jkt`: only with a proof by this key (RFC 9449 section 10)
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """What a client renews its access token with, once; the next one comes with it (RFC 9700 section 4.14.2)."""

    digest: bytes  # SHA-256 of the token, 32 bytes
    grant: GrantId  # its family: every refresh token of one grant descends from one code
    client: ClientId
    confirmation: Thumbprint | None = None  # the DPoP key it is bound to, where the client showed one
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person as an OpenID provider knows them."""

    issuer: str
    subject: str  # `sub`, which the provider gives to nobody else
    person: PersonName
    linked_at: datetime
