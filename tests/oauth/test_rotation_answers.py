"""Whatever comes back from a rotation, or gets lost on its way: the key that counts stays on disk."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import anyio
import httpx2
import pytest

from mcp_authz.client import AgentIdentity
from mcp_authz.client.door import Door, NoAnswer
from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.client.rotation import RotationRefused, draft_of, keep_fresh, lock_of, rotate
from mcp_authz.errors import KeyRefused
from mcp_authz.locking import locked
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import OPERATOR, Actor, House, house

LOST = httpx2.Response(502, text="bad gateway")
LIMITED = httpx2.Response(429, json={"error": "slow_down"})
CLOCK = httpx2.Response(400, json={"error": "invalid_key_proof", "error_description": "the new key must prove itself"})
PORTAL = httpx2.Response(200, json={"welcome": "agree to our terms"})


@dataclass
class Between(httpx2.AsyncBaseTransport):
    """What stands between an agent and the gateway, and says these things in place of the gateway's next answers."""

    says: list[httpx2.Response | None]
    hands_on: bool = True  # whether the gateway hears what it does not get to answer
    asked: int = 0
    way: httpx2.AsyncHTTPTransport = field(default_factory=httpx2.AsyncHTTPTransport)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        said = self.says.pop(0) if self.says else None
        if said is None:
            return await self.way.handle_async_request(request)
        if self.hands_on:
            answer = await self.way.handle_async_request(request)
            await answer.aread()
            await answer.aclose()
        return httpx2.Response(said.status_code, headers=said.headers, content=said.content)

    async def aclose(self) -> None:
        await self.way.aclose()


async def coder(h: House, directory: Path) -> tuple[Door, Path]:
    """An agent whose key file is a hundred days old."""
    path = directory / "coder.pem"
    save_key(path, (await h.agent("coder")).key, replace=False)
    then = time.time() - 100 * 86400
    os.utime(path, (then, then))
    return Door(issuer=h.issuer, token_endpoint=f"{h.issuer}/token"), path


async def counts(h: House) -> str:
    """The key with which the agent signs in."""
    (key,) = [key for key in (await h.agents.show("coder")).keys if key.retires_at is None]
    return key.thumbprint


async def test_a_key_that_was_taken_while_the_answer_was_lost_survives_whatever_is_answered_next(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as h:
        door, path = await coder(h, tmp_path)
        old = load_key(path)
        between = Between(says=[LOST])
        async with httpx2.AsyncClient(transport=between) as http:
            with pytest.raises(NoAnswer):
                await rotate(http, door, "coder", path)
            for later in (LIMITED, CLOCK, PORTAL, LOST):  # to the new key; the old one is not let in any more
                between.says = [None, later]
                with pytest.raises((RotationRefused, NoAnswer)):
                    await rotate(http, door, "coder", path)
            assert await counts(h) == load_key(draft_of(path)).public.thumbprint
            new = await rotate(http, door, "coder", path)
        assert new != old and load_key(path).public == new.public and not draft_of(path).exists()
        await h.sign_in(Actor((await h.agents.show("coder")).agent.name, new))


@pytest.mark.parametrize("said", [LIMITED, CLOCK, PORTAL])
async def test_neither_key_is_thrown_away_for_what_is_no_refusal_of_the_key(
    tmp_path: Path, said: httpx2.Response
) -> None:
    async with house(tmp_path) as h:
        door, path = await coder(h, tmp_path)
        old = load_key(path)
        async with httpx2.AsyncClient(transport=Between(says=[said], hands_on=False)) as http:
            with pytest.raises((RotationRefused, NoAnswer)):
                await rotate(http, door, "coder", path)
        assert load_key(path).public == old.public and draft_of(path).exists()


async def test_a_rotation_that_was_refused_is_not_asked_for_again_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as h:
        door, path = await coder(h, tmp_path)
        second = PrivateKey.generate()
        await h.agents.rotate("coder", second.public, timedelta(hours=1), by=OPERATOR)  # there is no room for a third
        save_key(path, second, replace=True)
        then = time.time() - 100 * 86400
        os.utime(path, (then, then))
        between = Between(says=[])
        async with httpx2.AsyncClient(transport=between) as http:
            with caplog.at_level(logging.WARNING):
                for _ in range(3):
                    await keep_fresh(http, door, "coder", path, older_than=timedelta(days=90))
        assert between.asked == 1 and len(caplog.records) == 1
        assert load_key(path).public == second.public and not draft_of(path).exists()


async def test_an_agent_does_not_replace_its_key_while_another_process_of_it_does(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, path = await coder(h, tmp_path)
        identity = AgentIdentity.load(path, name="coder")
        with locked(lock_of(path)), anyio.move_on_after(0.3) as waiting:
            await identity.rotate(h.resource, path)
        assert waiting.cancelled_caught
        assert load_key(path).public == identity.public_key and not draft_of(path).exists()
        assert await counts(h) == identity.thumbprint
        assert (await identity.rotate(h.resource, path)).thumbprint == await counts(h)


async def test_a_key_that_is_sealed_is_not_replaced_by_one_that_is_not(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, path = await coder(h, tmp_path)
        identity = AgentIdentity.load(path, name="coder")
        identity.save(path, passphrase="correct horse battery", replace=True)
        with pytest.raises(KeyRefused, match="agent rotate NAME --public-key"):
            await identity.rotate(h.resource, path)
        assert not draft_of(path).exists() and await counts(h) == identity.thumbprint
