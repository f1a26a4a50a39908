"""Accounts in use: who is invited to register a passkey, who has one, who signs in with it, and who is signed in."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.passkey import Invitation, Passkey, SignIn
from mcp_authz.principals import Authentication, PersonName
from mcp_authz.rules.keys import b64url, equal, random_bytes, unb64url
from mcp_authz.store.ports import Clock, Event, EventKind, Store

_TOKEN_BYTES = 32

PASSKEY_AMR = ("swk", "user")  # RFC 8176: a key, which may be one in software, and its user was verified


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPasskey:
    """A credential whose registration was verified just now; the edge that verified it is the only one to make one."""

    credential: bytes
    public_key: bytes  # COSE_Key
    sign_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPasskey:
    """A passkey whose assertion was verified just now; the edge that verified it is the only one to make one."""

    passkey: Passkey
    sign_count: int


class LinkOver(Conflict):
    """The one-time link is used, or its time is up."""

    code = "link_over"


def invitation_link(public_url: str, token: str) -> str:
    """The one-time link that leads to the page where a passkey is registered."""
    return f"{public_url}/welcome/{token}"


class Accounts:
    """How people come to passkeys, and how browsers come to be somebody's."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def invite(self, person: PersonName, *, by: str, lifetime: timedelta = limits.INVITATION) -> str:
        """The token of a new invitation: good for one passkey; links made earlier for the person are over.

        Raises:
            NotFound: there is no such person.
            Conflict: the person is revoked, or has an active passkey: it is what lets them add another.
        """
        token, now = b64url(random_bytes(_TOKEN_BYTES)), self._clock()
        new = Invitation(digest=_digest(token), person=person, made_at=now, expires_at=now + lifetime)
        summary = f"{person} may register a passkey by a link"
        event = _event("enrolment", now, by, summary, person, minutes=int(lifetime.total_seconds()) // 60)
        await self._store.add_invitation(new, event)
        return token

    async def invited(self, token: str) -> Invitation:
        """The invitation that the token opens.

        Raises:
            NotFound: nobody was ever invited with it.
            LinkOver: it was used, or its time is up.
        """
        try:
            found = await self._store.invitation(_digest(token))
        except InputError:
            found = None
        if found is None:
            raise NotFound("there is no such invitation; look whether the link was copied whole")
        if found.used_at is not None:
            raise LinkOver("this link was used already")
        if self._clock() >= found.expires_at:
            raise LinkOver("the time of this link is up, or a newer one was made")
        return found

    async def register_invited(self, token: str, new: NewPasskey, label: str) -> Passkey:
        """The invited person has this passkey, and the link is used.

        Raises:
            NotFound, LinkOver: as `invited`.
            Conflict: the link was used meanwhile, the person is revoked, or the credential is known already.
        """
        invitation = await self.invited(token)
        passkey, event = self._registered(invitation.person, new, label)
        await self._store.add_invited(passkey, invitation.digest, event)
        return passkey

    async def register_further(self, signed_in: SignIn, new: NewPasskey, label: str) -> Passkey:
        """The person who is signed in has one more passkey.

        Raises:
            Conflict: they are not signed in any more, have too many, or the credential is known already.
        """
        passkey, event = self._registered(signed_in.person, new, label)
        await self._store.add_further(passkey, signed_in.digest, event)
        return passkey

    async def sign_in(self, shown: ShownPasskey) -> str:
        """The cookie of a browser in which the passkey's person is signed in from now on.

        Raises:
            Conflict: the passkey was revoked, or its counter did not go up.
        """
        return await self._sign_in(shown.passkey, shown.sign_count)

    async def sign_in_registered(self, passkey: Passkey) -> str:
        """As `sign_in`, by a passkey that was registered just now: that it was shown is what registered it."""
        return await self._sign_in(passkey, None)

    async def sign_in_elsewhere(self, person: PersonName, authentication: Authentication) -> str:
        """The cookie of a browser in which the person is signed in from now on, as an OpenID provider says.

        Raises:
            NotFound: there is no such person.
            Conflict: the person is revoked.
        """
        return await self._open(person, None, authentication, None, issuer=authentication.issuer)

    async def signed_in(self, cookie: str) -> SignIn | None:
        """Whose browser has this cookie, if the sign-in has not ended and person and passkey are active."""
        try:
            return await self._store.sign_in(_digest(cookie))
        except InputError:
            return None

    async def note_use(self, sign_in: SignIn) -> None:
        """That the person was at the browser now is known, give or take `limits.SIGN_IN_NOTED`."""
        if self._clock() - sign_in.last_used_at >= limits.SIGN_IN_NOTED:
            await self._store.use_sign_in(sign_in.digest)

    async def is_signed_in(self, sign_in: SignIn) -> bool:
        """Whether the sign-in still counts."""
        return await self._store.sign_in(sign_in.digest) is not None

    async def sign_out(self, sign_in: SignIn) -> None:
        """The browser's cookie is good for nothing any more."""
        by = f"user:{sign_in.person}"
        event = _event("sign-in", self._clock(), by, f"{sign_in.person} signed out", sign_in.person)
        await self._store.end_sign_in(sign_in.digest, event)

    async def sign_out_everywhere(self, person: PersonName, *, by: str) -> int:
        """How many browsers the person was signed in with: all of them are signed out."""
        event = _event("sign-in", self._clock(), by, f"{person} was signed out everywhere", person)
        return await self._store.end_sign_ins(person, event)

    async def sign_ins_of(self, person: PersonName) -> tuple[SignIn, ...]:
        """Every browser in which the person is signed in, the one that was used last first."""
        return await self._store.sign_ins_of(person)

    def is_fresh(self, sign_in: SignIn, max_age: timedelta) -> bool:
        """Whether the person proved who they are no longer ago than `max_age` (RFC 9470)."""
        return self._clock() - sign_in.authentication.at <= max_age

    async def other_half(self, token: str) -> str:
        """What only the page that a sign-in ended on is told, beside its cookie: no other port of the host gets it.

        Raises:
            InputError: the text is no token.
        """
        return await self._other_half(_digest(token))

    async def has_other_half(self, sign_in: SignIn, half: str) -> bool:
        """Whether this is the other half of the sign-in; compared in constant time."""
        return equal(half.encode(), (await self._other_half(sign_in.digest)).encode())

    async def _other_half(self, digest: bytes) -> str:
        key = await self._store.secret("other-half-key", lambda: random_bytes(32))
        return b64url(hmac.digest(key, digest, "sha256"))

    async def passkey(self, credential: bytes) -> Passkey | None:
        """The passkey, if it and its person are active."""
        return await self._store.passkey(credential)

    async def passkeys_of(self, person: PersonName) -> tuple[Passkey, ...]:
        """The active passkeys of the person, oldest first."""
        return tuple(one for one in await self._store.passkeys_of(person) if one.status == "active")

    async def use(self, shown: ShownPasskey) -> None:
        """The passkey was used now; its counter stands where the authenticator says.

        Raises:
            Conflict: it was revoked, or the counter did not go up.
        """
        await self._store.use_passkey(shown.passkey.credential, shown.sign_count)

    async def revoke_passkeys(self, person: PersonName, *, by: str) -> int:
        """How many passkeys the person had: none of them counts any more, and the browsers are signed out."""
        summary = f"the passkeys of {person} were revoked, to be replaced"
        event = _event("revocation", self._clock(), by, summary, person, passkeys_of=f"user:{person}")
        return await self._store.revoke_passkeys(person, event)

    async def replaced_lately(self, person: PersonName) -> datetime | None:
        """When the person's passkeys were replaced from the command line, if that is news."""
        return await self._store.passkeys_replaced(person, self._clock() - limits.REPLACEMENT_SHOWN)

    async def user_handle(self, person: PersonName) -> bytes:
        """What authenticators know the person by: 32 bytes that say nothing (WebAuthn Level 3 section 14.6.1)."""
        key = await self._store.secret("user-handle-key", lambda: random_bytes(32))
        return hmac.digest(key, person.encode(), "sha256")

    def _registered(self, person: PersonName, new: NewPasskey, label: str) -> tuple[Passkey, Event]:
        now = self._clock()
        passkey = Passkey(
            credential=new.credential,
            person=person,
            public_key=new.public_key,
            sign_count=new.sign_count,
            label=label[: limits.NAME],
            added_at=now,
        )
        credential = b64url(new.credential)
        summary, digest = f"{person} registered a passkey", hashlib.sha256(new.public_key).hexdigest()
        fields = {"passkey": credential, "digest": digest}
        return passkey, _event("enrolment", now, f"user:{person}", summary, person, **fields)

    async def _sign_in(self, passkey: Passkey, sign_count: int | None) -> str:
        shown = Authentication(at=self._clock(), amr=PASSKEY_AMR)
        credential = b64url(passkey.credential)
        return await self._open(passkey.person, passkey.credential, shown, sign_count, passkey=credential)

    async def _open(
        self,
        person: PersonName,
        credential: bytes | None,
        authentication: Authentication,
        sign_count: int | None,
        **how: str | None,
    ) -> str:
        token, now = b64url(random_bytes(_TOKEN_BYTES)), self._clock()
        new = SignIn(
            digest=_digest(token),
            person=person,
            credential=credential,
            authentication=authentication,
            began_at=now,
            last_used_at=now,
            expires_at=now + limits.SIGN_IN_LIFETIME,
        )
        event = _event("sign-in", now, f"user:{person}", f"{person} signed in", person, **how)
        await self._store.open_sign_in(new, sign_count, event)
        return token


def _digest(token: str) -> bytes:
    """What the store knows of a token: SHA-256 of its bytes.

    Raises:
        InputError: the text is no base64url.
    """
    return hashlib.sha256(unb64url(token)).digest()


def _event(kind: EventKind, at: datetime, by: str, summary: str, person: PersonName, **more: Any) -> Event:
    return Event(kind=kind, at=at, fields={"summary": summary, "by": by, "person": f"user:{person}", **more})
