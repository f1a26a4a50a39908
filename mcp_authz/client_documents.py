"""Documents that client ids lead to: fetched when they are needed, and remembered for a while.

Strangers choose these URLs. So memory is bounded, one document is fetched once at a time, and how many are fetched of
clients that nobody agreed to is bounded, at once and in a minute, for everybody together.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio

from mcp_authz import limits
from mcp_authz.authorization import RegisteredClient
from mcp_authz.errors import AuthzError, FetchRefused, InputError, NotFound
from mcp_authz.principals import ClientId
from mcp_authz.rules import client_document
from mcp_authz.rules.client_metadata import require_url
from mcp_authz.store.ports import Clock

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the document at a URL, or raises `FetchRefused`."""


@dataclass(slots=True)
class _Reading:
    """What this process knows of one client's document."""

    client: RegisteredClient | None = None  # as it was read last; None: it never could be
    tried_at: datetime | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class ClientDocuments:
    """Reads what clients say of themselves at their URLs."""

    def __init__(self, fetch: Fetch, clock: Clock, *, schemes: Collection[str]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._schemes = schemes
        self._readings: OrderedDict[ClientId, _Reading] = OrderedDict()
        self._new: deque[datetime] = deque()  # when documents of clients that nobody agreed to were fetched
        self._fetching = 0  # such documents, just now

    async def latest(self, id_: ClientId, stored: RegisteredClient | None) -> RegisteredClient:
        """Return the client as its document says, or said within `limits.METADATA_KEPT` if its host is away.

        It is `stored` where that was read within `limits.METADATA_FRESH`, or is the last that could be. Any other has
        no handle yet.

        Raises:
            NotFound: the id is no URL of a document, or what is there is none; for people to read.
        """
        if stored is not None and self._is_within(stored.read_at, limits.METADATA_FRESH):
            return stored
        try:
            require_url(id_)
        except InputError as error:
            raise NotFound(f"there is no such client: {error}") from None
        reading = self._reading(id_)
        async with reading.lock:  # one fetch at a time; who waited finds what it brought
            if reading.client is None or not self._is_within(reading.client.read_at, limits.METADATA_FRESH):
                await self._try(id_, stored, reading)
            known = [client for client in (stored, reading.client) if client is not None]
        found = max(known, key=_read_at, default=None)
        if found is None or not self._is_within(found.read_at, limits.METADATA_KEPT):
            raise NotFound(f"the client `{id_}` cannot be read; try again in a while")
        return found

    async def _try(self, id_: ClientId, stored: RegisteredClient | None, reading: _Reading) -> None:
        """The document is read, if its host answers; what was known before stays known where it does not."""
        known = stored is not None or reading.client is not None
        if known and self._is_within(reading.tried_at, limits.METADATA_PAUSE):
            return
        reading.tried_at = self._clock()
        try:
            if stored is not None:
                reading.client = await self._fetched(id_)
            else:
                async with self._strangers():
                    reading.client = await self._fetched(id_)
        except AuthzError as error:
            if not known:  # an error is never remembered (section 5.2 of the draft)
                raise NotFound(f"the client `{id_}` cannot be known: {error}") from None

    @asynccontextmanager
    async def _strangers(self) -> AsyncIterator[None]:
        """Leave to fetch a document that nobody agreed to yet: so many at once, so many a minute, whoever asks."""
        now = self._clock()
        while self._new and now - self._new[0] >= timedelta(minutes=1):
            self._new.popleft()
        if self._fetching >= limits.DOCUMENTS_AT_ONCE or len(self._new) >= limits.DOCUMENTS_PER_MINUTE:
            raise FetchRefused("too many new clients are looked up just now; try again in a minute")
        self._new.append(now)
        self._fetching += 1
        try:
            yield
        finally:
            self._fetching -= 1

    async def _fetched(self, id_: ClientId) -> RegisteredClient:
        """The client as its document, and its key set elsewhere, say that it is."""
        try:
            with anyio.fail_after(limits.METADATA_TIME.total_seconds()):  # for both, where there are two
                said = client_document.read_document(await self._fetch(id_), url=id_, schemes=self._schemes)
                jwks = said.jwks
                if said.jwks_uri is not None:
                    jwks = client_document.read_jwks(await self._fetch(said.jwks_uri))
        except TimeoutError:
            raise FetchRefused("its document and its keys did not come in time") from None
        except InputError as error:
            raise FetchRefused(str(error)) from None
        now = self._clock()
        return RegisteredClient(
            id=id_,
            handle="",
            name=said.name,
            kind="document",
            redirect_uris=said.redirect_uris,
            method=said.method,
            jwks=jwks,
            registered_at=now,
            read_at=now,
        )

    def _reading(self, id_: ClientId) -> _Reading:
        """What is known of the document; those that nobody asked for in the longest time are forgotten."""
        reading = self._readings.setdefault(id_, _Reading())
        self._readings.move_to_end(id_)
        while len(self._readings) > limits.DOCUMENTS:
            self._readings.popitem(last=False)
        return reading

    def _is_within(self, at: datetime | None, duration: timedelta) -> bool:
        return at is not None and self._clock() - at < duration


def _read_at(client: RegisteredClient) -> datetime:
    return client.read_at or client.registered_at
