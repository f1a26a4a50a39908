"""A program that a person lets act for them, at a real gateway: a stock MCP client with `PersonAuth`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from mcp_authz.cli.kept_login import CLIENT
from mcp_authz.client import FileTokens, PersonAuth
from tests.client_library.parties import LIST, OPEN, READ, stock_client
from tests.web.asking import agree, grants
from tests.web.authenticator import Visit, visiting
from tests.world import world

READS, WRITES = "pr:read:*:*", "pr:write:acme:api"


@dataclass
class Clicking:
    """A person who agrees, on the gateway's page, to what is asked; where that is left to them, to reading."""

    person: Visit
    asked: list[set[str]] = field(default_factory=list)
    uri: str = "http://127.0.0.1:7777/callback"

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[Clicking]:
        """An answer is waited for while the body runs."""
        yield self

    async def answer(self, url: str, _: str) -> str:
        """Return the URL that the person was sent back to."""
        query = urlsplit(url).query
        scopes = set(parse_qs(query)["scope"][0].split())
        self.asked.append(scopes)
        went = await agree(self.person, query, sorted(scopes - {"mcp:connect"}) or [READS])
        assert went.status_code == 200, went.text
        return str(went.json()["next"])


async def test_from_a_401_to_a_call_then_to_a_wider_one_and_to_a_renewed_token(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        async with visiting(w, "alice") as alice:
            person, kept = Clicking(alice), FileTokens(tmp_path / "login.json")
            auth = PersonAuth(w.url, redirect=person, client=CLIENT, storage=kept, clock=w.clock)
            async with stock_client(w, auth) as client:
                assert not (await client.call_tool(LIST, READ)).is_error
                first = auth.signed_in
                assert first is not None and first.is_bound  # of no use without the program's key
                await client.call_tool(OPEN, {**READ, "title": "t", "branch": "b"})
                assert person.asked == [{"mcp:connect"}, {"mcp:connect", READS, WRITES}]
                w.clock.advance(timedelta(minutes=11))
                assert not (await client.call_tool(LIST, READ)).is_error
            assert len(person.asked) == 2 and len(await grants(w)) == 2
            assert all(one.agent == "cli@alice" for one in await grants(w))
            assert await auth.sign_out() and kept.load() is None
            (wider,) = [one for one in await grants(w) if one.scope == {READS, WRITES}]
            assert wider.status == "revoked"
