"""A program signs in at any MCP server: for a person who lets it act, for itself, or by who vouches for it.

    http = httpx2.AsyncClient(auth=PersonAuth("https://mcp.example.com/mcp", storage=FileTokens("tokens.json")))

Each is an auth for an httpx2.AsyncClient. What is kept is bound to one authorization server and never shown to another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import TypedDict, Unpack

from mcp_authz.client.asking import Clock
from mcp_authz.client.discovery import safe_url
from mcp_authz.client.loopback import Loopback
from mcp_authz.client.mcp_auth import McpAuth
from mcp_authz.client.registering import Client, Introduction
from mcp_authz.client.signed_in import Storage
from mcp_authz.client.ways_in import Assertion, ByAssertion, ByEmployer, ByItself, ByPerson, Provider, Redirect
from mcp_authz.errors import InputError


class Kept(TypedDict, total=False):
    """Where a sign-in is kept (else in memory), which scopes it begins with, and whom to trust for https."""

    storage: Storage | None
    scope: str | None
    clock: Clock
    verify: SSLContext | None
    beside: str | None


class PersonAuth(McpAuth):
    """A person signs in in their browser and lets the program act for them."""

    def __init__(
        self,
        url: str,
        *,
        redirect: Redirect | None = None,
        client: Client | None = None,
        metadata_url: str | None = None,
        name: str = "mcp-authz client",
        registers: bool = True,
        **kept: Unpack[Kept],
    ) -> None:
        """`redirect` opens the browser and gets the answer; else one on this machine does, at a free port.

        The program is `client` where the server knows it. Otherwise it is what the document at `metadata_url` says, or
        it registers itself as `name`.

        Raises:
            InputError: a URL is none, or one by which a token would travel in the open.
        """
        if metadata_url is not None and (safe_url(metadata_url).scheme != "https" or not safe_url(metadata_url).path):
            raise InputError(f"`{metadata_url}` must be an https URL with a path")
        introduction = Introduction(name=name, metadata_url=metadata_url, registers=registers)
        way = ByPerson(redirect=redirect or Loopback(), introduction=introduction, client=client)
        super().__init__(url, way, **kept)


class ProgramAuth(McpAuth):
    """The program acts in its own name: it proves itself by its secret or its key."""

    def __init__(self, url: str, client: Client, **kept: Unpack[Kept]) -> None:
        """As `PersonAuth`.

        Raises:
            InputError: the URL is none, or the client has nothing to prove itself by.
        """
        if not client.proves_itself:
            raise InputError(f"client `{client.id}` needs a secret= or a key=")
        super().__init__(url, ByItself(client=client), **kept)


class WorkloadAuth(McpAuth):
    """What runs the program vouches for it: `assertion` returns a JWT for the authorization server that it is given."""

    def __init__(self, url: str, client: Client, assertion: Assertion, **kept: Unpack[Kept]) -> None:
        """As `PersonAuth`.

        Raises:
            InputError: the URL is none.
        """
        super().__init__(url, ByAssertion(client=client, assertion=assertion), **kept)


class EmployerAuth(McpAuth):
    """The company decides what its person's program may do: its provider exchanges the person's ID token for that."""

    def __init__(
        self,
        url: str,
        client: Client,
        *,
        provider: Provider,
        id_token: Callable[[], Awaitable[str]],
        **kept: Unpack[Kept],
    ) -> None:
        """As `PersonAuth`.

        Raises:
            InputError: a URL is none.
        """
        safe_url(provider.token_endpoint)
        super().__init__(url, ByEmployer(client=client, provider=provider, id_token=id_token), **kept)
