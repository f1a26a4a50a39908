"""The half of the SQLite store that is about people, clients and what they agreed to."""

from __future__ import annotations

from datetime import datetime

from mcp_authz.authorization import AuthorizationCode, Identity, RefreshToken, RegisteredClient
from mcp_authz.passkey import Invitation, Passkey, SignIn
from mcp_authz.principals import Agent, AgentName, ClientId, Grant, GrantId, Link, Person, PersonName, Session
from mcp_authz.store import accounts, authorizations, identities
from mcp_authz.store.connections import Reader
from mcp_authz.store.ports import Event
from mcp_authz.store.rows import micros
from mcp_authz.store.writer import Writer


class PeopleInSqlite:
    """The promises of `store.people`; reads and writes go where the store's others go."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._ask, self._write = reader.ask, writer.run

    async def passkey(self, credential: bytes) -> Passkey | None:
        return self._ask(lambda tx: accounts.passkey(tx, credential))

    async def passkeys_of(self, person: PersonName) -> tuple[Passkey, ...]:
        return self._ask(lambda tx: accounts.passkeys_of(tx, person))

    async def add_invitation(self, invitation: Invitation, event: Event) -> None:
        await self._write(lambda tx: accounts.add_invitation(tx, invitation, event))

    async def invitation(self, digest: bytes) -> Invitation | None:
        return self._ask(lambda tx: accounts.invitation(tx, digest))

    async def add_invited(self, passkey: Passkey, invitation: bytes, event: Event) -> None:
        await self._write(lambda tx: accounts.add_invited(tx, passkey, invitation, event))

    async def add_further(self, passkey: Passkey, signed_in: bytes, event: Event) -> None:
        await self._write(lambda tx: accounts.add_further(tx, passkey, signed_in, event))

    async def use_passkey(self, credential: bytes, sign_count: int) -> None:
        await self._write(lambda tx: accounts.use_passkey(tx, credential, sign_count))

    async def open_sign_in(self, sign_in: SignIn, sign_count: int | None, event: Event) -> None:
        await self._write(lambda tx: accounts.open_sign_in(tx, sign_in, sign_count, event))

    async def sign_in(self, digest: bytes) -> SignIn | None:
        return self._ask(lambda tx: accounts.sign_in(tx, digest))

    async def sign_ins_of(self, person: PersonName) -> tuple[SignIn, ...]:
        return self._ask(lambda tx: accounts.sign_ins_of(tx, person))

    async def end_sign_in(self, digest: bytes, event: Event) -> None:
        await self._write(lambda tx: accounts.end_sign_in(tx, digest, event))

    async def revoke_passkeys(self, person: PersonName, event: Event) -> int:
        return await self._write(lambda tx: accounts.revoke_passkeys(tx, person, event))

    async def passkeys_replaced(self, person: PersonName, since: datetime) -> datetime | None:
        return self._ask(lambda tx: accounts.passkeys_replaced(tx, person, since))

    async def use_sign_in(self, digest: bytes) -> None:
        await self._write(lambda tx: accounts.use_sign_in(tx, digest))

    async def end_sign_ins(self, person: PersonName, event: Event) -> int:
        return await self._write(lambda tx: accounts.end_sign_ins(tx, person, event))

    # Authorizations

    async def client(self, client: ClientId) -> RegisteredClient | None:
        return self._ask(lambda tx: authorizations.client(tx, client))

    async def clients(self) -> tuple[RegisteredClient, ...]:
        return self._ask(authorizations.clients)

    async def add_client(self, client: RegisteredClient, event: Event, *, at_most: int | None = None) -> None:
        await self._write(lambda tx: authorizations.add_client(tx, client, event, at_most=at_most))

    async def update_client(self, client: RegisteredClient, event: Event | None) -> None:
        await self._write(lambda tx: authorizations.update_client(tx, client, event))

    async def remove_unused_clients(self, kind: str, before: datetime) -> int:
        return await self._write(lambda tx: authorizations.remove_unused(tx, kind, micros(before)))

    async def client_agent(self, client: ClientId, owner: PersonName) -> Agent | None:
        return self._ask(lambda tx: authorizations.client_agent(tx, client, owner))

    async def client_grants(self, client: ClientId, subject: PersonName, agent: AgentName) -> tuple[Grant, ...]:
        return self._ask(lambda tx: authorizations.client_grants(tx, client, subject, agent))

    async def newest_session(self, grant: GrantId) -> tuple[Session, Link] | None:
        return self._ask(lambda tx: authorizations.newest_session(tx, grant))

    async def authorize(self, agent: Agent, grant: Grant, code: AuthorizationCode | None, event: Event) -> None:
        await self._write(lambda tx: authorizations.authorize(tx, agent, grant, code, event))

    async def code(self, digest: bytes) -> AuthorizationCode | None:
        return self._ask(lambda tx: authorizations.code(tx, digest))

    async def redeem_code(
        self, digest: bytes, opened: tuple[Session, Link, Event], refresh: RefreshToken | None
    ) -> None:
        await self._write(lambda tx: authorizations.redeem_code(tx, digest, opened, refresh))

    async def refresh_token(self, digest: bytes) -> RefreshToken | None:
        return self._ask(lambda tx: authorizations.refresh_token(tx, digest))

    async def rotate(self, used: bytes, after: RefreshToken, opened: tuple[Session, Link, Event] | None) -> None:
        await self._write(lambda tx: authorizations.rotate(tx, used, after, opened))

    # Identities

    async def identity(self, issuer: str, subject: str) -> Identity | None:
        return self._ask(lambda tx: identities.identity(tx, issuer, subject))

    async def identities_of(self, person: PersonName) -> tuple[Identity, ...]:
        return self._ask(lambda tx: identities.identities_of(tx, person))

    async def link_identity(self, identity: Identity, person: Person | None, event: Event) -> None:
        await self._write(lambda tx: identities.link_identity(tx, identity, person, event))

    async def set_groups(self, person: PersonName, groups: frozenset[str], event: Event) -> None:
        await self._write(lambda tx: identities.set_groups(tx, person, groups, event))
