"""The nouns by which a person proves on the page that it is them: frozen values, as `model` has the others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mcp_authz.principals import Authentication, PersonName, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A WebAuthn credential by which a person proves that it is them (WebAuthn Level 3)."""

    credential: bytes  # the credential id that the authenticator chose
    person: PersonName
    public_key: bytes  # COSE_Key, as registered
    sign_count: int
    label: str
    added_at: datetime
    last_used_at: datetime | None = None
    status: Status = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A one-time link by which a person registers a passkey; the store knows only its token's digest."""

    digest: bytes  # SHA-256 of the token, 32 bytes
    person: PersonName
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A browser in which a person has proved who they are; the store knows only its cookie's digest."""

    digest: bytes  # SHA-256 of the cookie's token, 32 bytes
    person: PersonName
    credential: bytes | None  # the passkey that was shown; None: an OpenID provider said who it is
    authentication: Authentication
    began_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
