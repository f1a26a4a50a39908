"""OAuth clients: which ones there are, what is known of them, and how the gateway comes to know another one.

A client is registered by an operator, registers itself where that is switched on, or has the URL of a document as its
id. One of the last kind is in the store only once somebody agrees to it: strangers choose such URLs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.authorization import ClientKind, ClientMethod, RegisteredClient
from mcp_authz.client_documents import ClientDocuments, Fetch
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.ids import new_id
from mcp_authz.principals import ClientId
from mcp_authz.rules import client_document
from mcp_authz.rules.client_document import SECRET_METHODS, ClientMetadata
from mcp_authz.rules.keys import b64url, random_bytes
from mcp_authz.store.ports import Clock, Event, Store

CLI: Final = RegisteredClient(
    id=ClientId("mcp-authz-cli"),
    handle="cli",
    name="mcp-authz command line",
    kind="registered",
    redirect_uris=("http://127.0.0.1/callback",),
    registered_at=datetime(2026, 1, 1, tzinfo=UTC),
)
"""Known to every gateway: what `mcp-authz login` is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClient:
    """A client that was just registered, with its secret if it has one: shown once, and kept by nobody."""

    client: RegisteredClient
    secret: str | None = field(default=None, repr=False)


class Clients:
    """Knows clients, and registers them."""

    def __init__(self, store: Store, clock: Clock, fetch: Fetch, *, schemes: Collection[str], dynamic: bool) -> None:
        self._store = store
        self._clock = clock
        self._schemes = frozenset(schemes)
        self._dynamic = dynamic
        self._documents = ClientDocuments(fetch, clock, schemes=self._schemes)

    @property
    def dynamic(self) -> bool:
        """Whether clients may register themselves."""
        return self._dynamic

    async def known(self, client_id: str) -> RegisteredClient:
        """Return the client as it is now; what its document says was read not long ago.

        Its handle is the one that it has or, where nobody agreed to it yet, would be given.

        Raises:
            NotFound: there is no such client, it was stopped, or its document cannot be read; for people to read.
        """
        id_ = ClientId(client_id)
        stored = await self._store.client(id_)
        if stored is not None and stored.status != "active":
            raise NotFound(_stopped(stored))
        if stored is None and id_ == CLI.id:
            return CLI
        if stored is not None and stored.kind != "document":
            return stored
        if not client_id.startswith("https://"):
            raise NotFound(
                f"there is no client `{client_id[:128]}` here (any more): let the program sign in afresh, or "
                "an operator register it with `mcp-authz client add`"
            )
        latest = await self._documents.latest(id_, stored)
        if stored is None:
            return replace(latest, handle=await self._free_handle(latest))
        try:
            return stored if latest is stored else await self._update(stored, latest)
        except Conflict as error:
            raise NotFound(str(error)) from None

    async def kept(self, client_id: str) -> RegisteredClient:
        """Return the client as `known` does, if somebody agreed to it before; nothing is fetched for any other.

        A public one proves nothing by its document, so it stays what it was however long that cannot be read.

        Raises:
            NotFound: as `known`.
        """
        stored = await self._store.client(ClientId(client_id))
        if stored is None and client_id != CLI.id:
            raise NotFound(f"nobody agreed to a client `{client_id[:128]}`")
        try:
            return await self.known(client_id)
        except NotFound:
            if stored is not None and stored.status == "active" and stored.is_public:
                return stored
            raise

    async def keep(self, client: RegisteredClient) -> RegisteredClient:
        """Return the client as it is in the store from now on, with its handle; called once somebody agrees to it.

        Raises:
            Conflict: it was stopped meanwhile.
        """
        stored = await self._store.client(client.id)
        if stored is None:
            summary = f"client {client.name} is known, since somebody was asked to agree to it"
            return await self._add(client, _event(self._clock(), f"client:{client.id}", summary, client))
        if stored.status != "active":
            raise Conflict(_stopped(stored))
        if client.read_at is not None and (stored.read_at is None or stored.read_at < client.read_at):
            return await self._update(stored, client)
        return stored

    async def register(
        self,
        name: str,
        *,
        redirect_uris: Iterable[str],
        method: ClientMethod = "none",
        jwks: Mapping[str, Any] | None = None,
        by: str,
    ) -> NewClient:
        """The client is registered, as the operator says; one that authenticates by a secret is given one.

        Raises:
            InputError: its name, a redirect URI or a key is none.
            Conflict: no short name is left for it.
        """
        if (method == "private_key_jwt") != (jwks is not None):
            raise InputError("keys go together with `private_key_jwt`")
        shown = client_document.shown_name(name)
        if shown != name:
            raise InputError(f"a client's name is one line of 1 to {limits.CLIENT_NAME} visible characters")
        metadata = ClientMetadata(
            name=shown,
            redirect_uris=client_document.require_redirect_uris(list(redirect_uris), self._schemes),
            method=method,
            jwks=None if jwks is None else client_document.require_jwks(dict(jwks)),
        )
        return await self._registered(metadata, "registered", by=by, at_most=None)

    async def register_dynamic(self, metadata: Mapping[str, Any]) -> NewClient:
        """The client has registered itself (RFC 7591 section 3); those that nobody agreed to in a day are forgotten.

        Raises:
            RedirectRefused: a redirect URI is none that answers may go to.
            InputError: something else in the metadata is not possible here.
            Conflict: clients may not register themselves here, or too many did.
        """
        if not self._dynamic:
            raise Conflict("clients do not register themselves here; an operator registers them")
        read = client_document.read_registration(dict(metadata), schemes=self._schemes)
        await self._store.remove_unused_clients("dynamic", self._clock() - limits.DYNAMIC_UNUSED)
        return await self._registered(read, "dynamic", by="anybody", at_most=limits.DYNAMIC_CLIENTS)

    async def _registered(self, said: ClientMetadata, kind: ClientKind, *, by: str, at_most: int | None) -> NewClient:
        secret = b64url(random_bytes(32)) if said.method in SECRET_METHODS else None
        id_, now = ClientId(new_id("client")), self._clock()
        client = RegisteredClient(
            id=id_,
            handle="",
            name=said.name,
            kind=kind,
            redirect_uris=said.redirect_uris,
            method=said.method,
            jwks=said.jwks,
            secret=None if secret is None else hashlib.sha256(secret.encode()).digest(),
            registered_at=now,
        )
        summary = f"client {said.name} " + ("registered itself" if kind == "dynamic" else "is registered")
        added = await self._add(client, _event(now, by, summary, client), at_most=at_most)
        return NewClient(client=added, secret=secret)

    async def _add(self, client: RegisteredClient, event: Event, *, at_most: int | None = None) -> RegisteredClient:
        """The client is in the store, with the best handle that is free; one that came there meanwhile stays."""
        refused = Conflict(f"there is no short name left for a client called `{client.name}`")
        for handle in (client.handle,) if client.id == CLI.id else client_document.handles(client.name, client.id):
            named = replace(client, handle=handle)
            with_handle = replace(event, fields={**event.fields, "handle": handle})
            try:
                await self._store.add_client(named, with_handle, at_most=at_most)
                return named
            except Conflict as error:
                refused = error
            stored = await self._store.client(client.id)
            if stored is not None:
                return await self.keep(client)
        raise refused

    async def _update(self, stored: RegisteredClient, read: RegisteredClient) -> RegisteredClient:
        """What the document says now is what counts; a change is recorded, another reading of the same is not.

        A client that changed is registered from now on: what people agreed to before, they agreed to of another one.
        """
        current = replace(read, handle=stored.handle, kind=stored.kind, registered_at=stored.registered_at)
        same = replace(current, read_at=stored.read_at) == stored
        summary = f"the document of client {stored.handle} changed"
        event = None if same else _event(self._clock(), f"client:{stored.id}", summary, current)
        current = current if same else replace(current, registered_at=self._clock())
        try:
            await self._store.update_client(current, event)
        except Conflict:  # just now
            raise Conflict(_stopped(stored)) from None
        return current

    async def _free_handle(self, client: RegisteredClient) -> str:
        taken = {other.handle for other in await self._store.clients()}
        offered = tuple(client_document.handles(client.name, client.id))
        return next((handle for handle in offered if handle not in taken), offered[-1])


def _stopped(client: RegisteredClient) -> str:
    return f"{client.name} (`{client.id}`) was stopped by an operator"


def _event(at: datetime, by: str, summary: str, client: RegisteredClient) -> Event:
    fields = {
        "summary": summary,
        "by": by,
        "client": client.id,
        "redirect_uris": [uri.partition("?")[0] for uri in client.redirect_uris],
        "method": client.method,
    }
    return Event(kind="enrolment", at=at, fields=fields)
