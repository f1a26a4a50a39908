"""An agent that keeps its own key file replaces the key when it is old, and never loses one."""

from __future__ import annotations

import logging
import os
import stat
import time
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz.client.door import Door
from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.client.rotation import draft_of, keep_fresh
from mcp_authz.ids import new_id
from mcp_authz.rules.key_proof import prove_key, rotation_url
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import OPERATOR, Actor, House, expect, house, office, refused

DAY = timedelta(days=1)


async def keeps(h: House, directory: Path, *, days: float) -> tuple[Actor, Path]:
    """An agent, and the file of its key, which was written so many days ago."""
    coder, path = await h.agent("coder"), directory / "coder.pem"
    save_key(path, coder.key, replace=False)
    age(path, days)
    return coder, path


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))


async def fresh(h: House, path: Path, *, older_than: timedelta | None = 90 * DAY) -> None:
    door = Door(issuer=h.issuer, token_endpoint=f"{h.issuer}/token")
    await keep_fresh(h.http, door, "coder", path, older_than=older_than)


async def current(h: House) -> list[str]:
    return [key.thumbprint for key in (await h.agents.show("coder")).keys if key.retires_at is None]


async def test_a_key_that_is_too_old_is_replaced_and_signs_in(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, path = await keeps(h, tmp_path, days=91)
        await fresh(h, path)
        new = load_key(path)
        assert new.public != coder.key.public and await current(h) == [new.public.thumbprint]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and not draft_of(path).exists()
        await h.sign_in(Actor(coder.name, new))
        refused(await h.post(coder, grant_type="client_credentials"), "invalid_client")
        await fresh(h, path)
        assert load_key(path).public == new.public


@pytest.mark.parametrize(("days", "older_than"), [(89, 90 * DAY), (5000, None)])
async def test_a_key_that_is_not_too_old_stays(tmp_path: Path, days: float, older_than: timedelta | None) -> None:
    async with house(tmp_path) as h:
        coder, path = await keeps(h, tmp_path, days=days)
        await fresh(h, path, older_than=older_than)
        assert load_key(path).public == coder.key.public and await current(h) == [coder.key.public.thumbprint]


async def test_whoever_was_interrupted_after_the_gateway_agreed_goes_on_with_the_new_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, path = await keeps(h, tmp_path, days=1)
        new = PrivateKey.generate()
        save_key(draft_of(path), new, replace=False)
        where = rotation_url(h.issuer, "coder")
        proof = prove_key(new, agent="coder", audience=where, id=new_id("k"), at=h.clock())
        expect(await h.post(coder, "/agents/coder/key", proof=proof))
        await fresh(h, path)
        assert load_key(path).public == new.public and not draft_of(path).exists()
        assert await current(h) == [new.public.thumbprint]


async def test_whoever_was_interrupted_before_the_gateway_heard_of_it_asks_with_the_same_key(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, path = await keeps(h, tmp_path, days=1)
        new = PrivateKey.generate()
        save_key(draft_of(path), new, replace=False)
        await fresh(h, path, older_than=None)
        assert load_key(path).public == new.public and await current(h) == [new.public.thumbprint]


async def test_while_no_gateway_answers_both_keys_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with office(tmp_path, "http://localhost:9") as h:
        coder, path = await keeps(h, tmp_path, days=91)
        with caplog.at_level(logging.WARNING):
            await fresh(h, path)
        assert "no gateway answers" in caplog.text
        assert load_key(path).public == coder.key.public and draft_of(path).exists()


async def test_a_rotation_that_is_refused_leaves_the_key_there_is_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as h:
        coder, path = await keeps(h, tmp_path, days=1)
        second = PrivateKey.generate()
        await h.agents.rotate("coder", second.public, timedelta(hours=1), by=OPERATOR)
        save_key(path, second, replace=True)
        age(path, 91)
        with caplog.at_level(logging.WARNING):
            await fresh(h, path)
        assert "wait until one has retired" in caplog.text
        assert load_key(path).public == second.public and not draft_of(path).exists()
        assert coder.key.public.thumbprint not in caplog.text


async def test_an_agent_that_the_gateway_does_not_let_in_keeps_its_files(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, path = await keeps(h, tmp_path, days=91)
        await h.revoke("agent", "coder")
        await fresh(h, path)
        assert load_key(path).public == coder.key.public and draft_of(path).exists()


async def test_of_two_clients_of_one_agent_that_start_at_once_one_replaces_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as h:
        _, path = await keeps(h, tmp_path, days=91)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(fresh, h, path)
        keys = (await h.agents.show("coder")).keys
        assert len(keys) == 2 and keys[-1].thumbprint == load_key(path).public.thumbprint
        assert caplog.text == ""


async def test_a_file_that_is_not_there_is_no_trouble_of_a_rotation(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await fresh(h, tmp_path / "coder.pem")
        assert not draft_of(tmp_path / "coder.pem").exists()
