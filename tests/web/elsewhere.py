"""People who sign in with an OpenID provider: a certified one from npm, and a browser without a window."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import anyio
import httpx2

from tests.clients.node import PACKAGES, SOON, node, package
from tests.web.authenticator import Visit, visit
from tests.world import World, world

SCRIPT = Path(__file__).parent / "oidc_provider.mjs"
CLIENT = "gateway"
SECRET = "a secret of the gateway alone"
PEOPLE = {
    "1001": {"preferred_username": "alice", "groups": ["eng-approvers", "everybody"]},
    "1002": {"preferred_username": "bob", "groups": ["everybody"]},
}


@dataclass
class Company:
    """A running provider, and who is known there."""

    issuer: str
    accounts: dict[str, dict[str, Any]] = field(default_factory=lambda: {k: dict(v) for k, v in PEOPLE.items()})

    async def serve(self, public_url: str, **settings: Any) -> None:
        """The gateway at `public_url` is a client, and the people are known."""
        client = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": [f"{public_url}/sign-in/callback"],
        }
        await self.tell(client=client, accounts=self.accounts, settings=settings)

    async def tell(self, **job: Any) -> None:
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"{self.issuer}/test", json=job)).status_code == 200

    async def ahead(self, by: timedelta) -> None:
        """So much later it is on the provider's clock, counted from the real time."""
        await self.tell(ahead=int(by.total_seconds()))

    def configured(self, directory: Path, **more: Any) -> dict[str, Any]:
        """What the gateway's configuration says of it."""
        secret = directory / "client.secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        return {
            "issuer": self.issuer,
            "client_id": CLIENT,
            "client_secret_file": str(secret),
            "name": "Example Company",
            "groups": {"eng-approvers": "approvers"},
            **more,
        }


@asynccontextmanager
async def company() -> AsyncIterator[Company]:
    """A provider that runs; the test is skipped where there is no Node or no oidc-provider."""
    package("oidc-provider")
    command = [node(), str(SCRIPT), f"{PACKAGES}/"]
    async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        said = ""
        with anyio.fail_after(SOON):
            while not said.endswith("\n"):
                said += (await process.stdout.receive()).decode()
        try:
            yield Company(said.strip())
        finally:
            process.kill()


@asynccontextmanager
async def house(directory: Path, *, provider: Any = None, settings: Any = None, **more: Any) -> AsyncIterator[Any]:
    """A gateway whose people sign in with a provider: (world, company)."""
    async with company() as theirs:
        sign_in = {"provider": theirs.configured(directory, **(provider or {})), **more.pop("sign_in", {})}
        async with world(directory, sign_in=sign_in, **more) as w:
            await theirs.serve(w.config.public_url, **(settings or {}))
            yield w, theirs


async def leave(them: Visit, next_: str = "/holds", *, fresh: bool = False) -> str:
    """Where the provider's button sends the browser."""
    answer = await them.post("/sign-in/provider", {"next": next_, "fresh": fresh})
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["next"]
    return url


async def at_the_company(them: Visit, url: str, account: str) -> str:
    """Sign in at the provider; the address at the gateway that it sends the browser to."""
    for _ in range(6):
        answer = await them.http.get(url)
        if answer.status_code == 200:
            answer = await them.http.post(str(answer.url), data={"login": account})
        assert answer.is_redirect, answer.text
        url = str(answer.url.join(answer.headers["location"]))
        if url.startswith(f"{them.origin}/"):
            return url
    raise AssertionError("the provider goes round in circles")


async def come_back(them: Visit, url: str) -> httpx2.Response:
    """The browser follows the provider's answer."""
    return await them.http.get(url)


async def sign_in(them: Visit, account: str = "1001", next_: str = "/holds", *, fresh: bool = False) -> httpx2.Response:
    """The whole road, for somebody who is known at the provider as `account`."""
    return await come_back(them, await at_the_company(them, await leave(them, next_, fresh=fresh), account))


def half_of(arrived: httpx2.Response) -> str:
    """What the page keeps beside the cookie."""
    found = re.search(r'data-half="([^"]+)"', arrived.text)
    assert found is not None, arrived.text
    return found.group(1)


def changed(url: str, **query: str | None) -> str:
    """The address with other parameters; None takes one away."""
    parts = urlsplit(url)
    told = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **query}
    return urlunsplit(parts._replace(query=urlencode({k: v for k, v in told.items() if v is not None})))


@asynccontextmanager
async def employee(w: World, account: str = "1001") -> AsyncIterator[tuple[Visit, str]]:
    """Somebody who has signed in with the provider, and the half that their page keeps."""
    async with visit(w) as them:
        yield them, half_of(await sign_in(them, account))
