"""What the gateway asks of a store about people: their passkeys and sign-ins, what they agreed to, who knows them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from mcp_authz.authorization import AuthorizationCode, Identity, RefreshToken, RegisteredClient
from mcp_authz.passkey import Invitation, Passkey, SignIn
from mcp_authz.principals import Agent, AgentName, ClientId, Grant, GrantId, Link, Person, PersonName, Session
from mcp_authz.store.facts import Event


class Accounts(Protocol):
    """Passkeys, and how people come to them. Every change appends its event in the same transaction."""

    async def passkey(self, credential: bytes) -> Passkey | None:
        """The passkey, if it and its person are active."""

    async def passkeys_of(self, person: PersonName) -> tuple[Passkey, ...]:
        """Every passkey of the person, oldest first, revoked ones included."""

    async def add_invitation(self, invitation: Invitation, event: Event) -> None:
        """The invitation can be used once until it expires; earlier ones of the person cannot be used any more.

        Raises:
            NotFound: there is no such person.
            Conflict: the person is revoked, or has an active passkey.
        """

    async def invitation(self, digest: bytes) -> Invitation | None:
        """The invitation, used and expired ones included."""

    async def add_invited(self, passkey: Passkey, invitation: bytes, event: Event) -> None:
        """The person has their one passkey, and the invitation with this digest is used, both or neither.

        Raises:
            Conflict: the invitation is used, expired or another person's, the person is revoked or has an active
                passkey, or the credential is registered already.
        """

    async def add_further(self, passkey: Passkey, signed_in: bytes, event: Event) -> None:
        """The person has one more passkey; the sign-in with this digest is theirs and has not ended.

        Raises:
            Conflict: it has, the person has `limits.PASSKEYS_PER_PERSON`, or the credential is registered already.
        """

    async def use_passkey(self, credential: bytes, sign_count: int) -> None:
        """The passkey was used now, and its counter stands at `sign_count`.

        Raises:
            Conflict: it or its person is revoked, or the counter did not go up.
        """

    async def open_sign_in(self, sign_in: SignIn, sign_count: int | None, event: Event) -> None:
        """The person is signed in, and the passkey used, both or neither; None: it was registered just now.

        One without a passkey was signed in by an OpenID provider.

        Raises:
            NotFound: there is no such person.
            Conflict: as `use_passkey`; and when the passkey is somebody else's, or the person revoked.
        """

    async def sign_in(self, digest: bytes) -> SignIn | None:
        """The sign-in, if it has not ended and was not idle for too long, and its passkey and its person are active."""

    async def sign_ins_of(self, person: PersonName) -> tuple[SignIn, ...]:
        """Every sign-in of the person that `sign_in` would give, the one that was used last first."""

    async def use_sign_in(self, digest: bytes) -> None:
        """The browser was used now; a sign-in that has ended, or was idle for too long, stays as it is."""

    async def end_sign_ins(self, person: PersonName, event: Event) -> int:
        """How many browsers the person was signed in with: all are signed out. Where none was nothing is recorded."""

    async def end_sign_in(self, digest: bytes, event: Event) -> None:
        """The sign-in has ended; where it had ended before, nothing is recorded."""

    async def revoke_passkeys(self, person: PersonName, event: Event) -> int:
        """How many active passkeys the person had: they are revoked, and the sign-ins have ended.

        Where there were none nothing is recorded. The event's field `passkeys_of` names the person, for
        `passkeys_replaced`.
        """

    async def passkeys_replaced(self, person: PersonName, since: datetime) -> datetime | None:
        """When passkeys of the person were last revoked together, if that was after `since`."""


class Authorizations(Protocol):
    """OAuth clients, the grants that people gave through them, and the codes and refresh tokens that stand for them."""

    async def client(self, client: ClientId) -> RegisteredClient | None: ...
    async def clients(self) -> tuple[RegisteredClient, ...]: ...
    async def add_client(self, client: RegisteredClient, event: Event, *, at_most: int | None = None) -> None:
        """The client is known.

        Raises:
            Conflict: its id or its handle is taken, or there are `at_most` of its kind.
        """

    async def update_client(self, client: RegisteredClient, event: Event | None) -> None:
        """The client is as given; its status, handle and kind are not changed like this.

        Raises:
            NotFound: there is no such client.
            Conflict: status, handle or kind would change.
        """

    async def remove_unused_clients(self, kind: str, before: datetime) -> int:
        """How many clients of the kind were forgotten: registered before then, and nobody ever agreed to them."""

    async def client_agent(self, client: ClientId, owner: PersonName) -> Agent | None:
        """The agent that the client is for this person, revoked ones included."""

    async def client_grants(self, client: ClientId, subject: PersonName, agent: AgentName) -> tuple[Grant, ...]:
        """What the person agreed to through the client for this agent, and still counts; oldest first."""

    async def newest_session(self, grant: GrantId) -> tuple[Session, Link] | None:
        """The session of the grant that was started last, with its root link; one that has ended included."""

    async def authorize(self, agent: Agent, grant: Grant, code: AuthorizationCode | None, event: Event) -> None:
        """The grant is there, with the code that gets it; a client agent is there, with this ceiling: all, or nothing.

        Raises:
            Conflict: the person, the client or the agent is revoked, or the agent is another client's or person's.
        """

    async def code(self, digest: bytes) -> AuthorizationCode | None:
        """The code with this digest, used and expired ones included."""

    async def redeem_code(
        self, digest: bytes, opened: tuple[Session, Link, Event], refresh: RefreshToken | None
    ) -> None:
        """The code is used, the session of its grant is open, the refresh token counts: all, or nothing.

        Raises:
            Conflict: the code was used, has expired or is for another grant, or the grant is not active any more.
        """

    async def refresh_token(self, digest: bytes) -> RefreshToken | None:
        """The refresh token with this digest, used and expired ones included."""

    async def rotate(self, used: bytes, after: RefreshToken, opened: tuple[Session, Link, Event] | None) -> None:
        """The token is used, the one after it counts, and a new session of the grant is open, if one is given.

        Raises:
            Conflict: it was used, has expired or is for another grant, or the grant is not active any more.
        """


class Identities(Protocol):
    """People as OpenID providers know them."""

    async def identity(self, issuer: str, subject: str) -> Identity | None: ...
    async def identities_of(self, person: PersonName) -> tuple[Identity, ...]: ...
    async def link_identity(self, identity: Identity, person: Person | None, event: Event) -> None:
        """The provider's subject is this person, who comes to be if `person` is given.

        Raises:
            Conflict: the subject is somebody already; a new person's name is taken; or there is no such active person.
        """

    async def set_groups(self, person: PersonName, groups: frozenset[str], event: Event) -> None:
        """The person is in these groups and no others; where that is so already nothing is recorded."""
