"""A receiver hears that a call waits, and what became of it: signed, tried again, and holding up nobody."""

from __future__ import annotations

import base64
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.model import HoldState
from mcp_authz.rules.webhook_signature import make_secret, read_secret, require_signature
from mcp_authz.store.ports import Record
from tests.webhooks.receiver import FAST, Receiver, receiver, secret
from tests.world import Actor, Called, World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
KEY = read_secret(make_secret(bytes([1]) * 32))


def told(directory: Path, at: Receiver, **more: Any) -> dict[str, Any]:
    return {"url": at.url(), "secret_file": secret(directory, "out.whsec"), **more}


def hurry(w: World) -> None:
    """Attempts follow each other without the pauses of a real receiver's trouble."""
    w.running.webhooks.pauses = FAST


async def deploy(w: World, coder: Actor, **other: Any) -> Called:
    return await w.call(coder, "acme__deploy", **{**DEPLOY, **other})


async def untold(w: World, count: int) -> list[Record]:
    """So many records of messages that nobody took."""
    with anyio.fail_after(10):
        while True:
            found = [r for r in await w.records("administration") if "webhook" in r.event.fields]
            if len(found) >= count:
                return found
            await anyio.sleep(0.02)


async def test_a_receiver_hears_of_a_held_call_and_of_its_end_signed(tmp_path: Path) -> None:
    async with receiver() as team, world(tmp_path, webhooks={"team": told(tmp_path, team)}) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder)
        assert (await deploy(w, coder)).hold == held.hold  # told once, however often it is asked for
        (opened,) = await team.got(1)
        received = require_signature(KEY, opened.headers, opened.body, datetime.now(UTC))
        assert received.id.startswith("msg_") and opened.headers["content-type"] == "application/json"
        assert opened.path == "/hook" and opened.json["type"] == "hold.opened"
        assert opened.json["data"]["hold"] == held.hold and "1.4.0" not in opened.body.decode()
        page = f"{w.config.public_url}/holds/{held.hold}"
        assert opened.json["data"]["url"] == page
        async with httpx2.AsyncClient() as http:
            assert (await http.get(page)).status_code == 401  # the link shows nothing to who is not signed in

        await w.answer(held.hold, by="alice")
        _, ended = await team.got(2)
        assert ended.json["data"] == {"hold": held.hold, "state": "approved", "url": page}
        assert require_signature(KEY, ended.headers, ended.body, datetime.now(UTC)).id != received.id
        assert (await deploy(w, coder)).text and len(w.deployments()) == 1

        late = await deploy(w, coder, version="2")
        await team.got(3)
        w.clock.advance(timedelta(minutes=16))
        await w.person("bob")  # any write lets what is due expire
        *_, last = await team.got(4)
        assert (last.json["data"]["hold"], last.json["data"]["state"]) == (late.hold, "expired")
        assert not [r for r in await w.records("administration") if "webhook" in r.event.fields]


async def test_only_holds_of_its_rules_are_told_and_each_receiver_gets_its_own_form(tmp_path: Path) -> None:
    async with receiver() as team, receiver() as chat, receiver() as phone:
        hooks = {
            "team": told(tmp_path, team, rules=["session"]),
            "chat": {"url": chat.url("/services/T0/B0/secret"), "template": "slack", "tells": "everything"},
            "phone": {
                "url": phone.url("/base/approvals"),
                "template": "ntfy",
                "header_files": {"Authorization": token(tmp_path)},
            },
        }
        async with world(tmp_path, webhooks=hooks) as w:
            held = await deploy(w, await w.ready("coder", "deploy"))
            ((slack,), (ntfy,)) = await chat.got(1), await phone.got(1)
            assert slack.path == "/services/T0/B0/secret" and "webhook-signature" not in slack.headers
            assert "1.4.0" in json.dumps(slack.json["blocks"])
            assert ntfy.path == "/base/" and ntfy.json["topic"] == "approvals"
            assert ntfy.headers["authorization"] == "Bearer tk_secret"
            await w.answer(held.hold, by="alice", approve=False)
            await chat.got(2)
            await phone.got(2)
        assert team.posts == []


def token(directory: Path) -> str:
    path = directory / "ntfy.token"
    path.write_text("Bearer tk_secret\n")
    path.chmod(0o600)
    return str(path)


async def test_a_receiver_in_trouble_is_tried_again_with_the_same_id_and_a_new_time(tmp_path: Path) -> None:
    async with receiver() as team, world(tmp_path, webhooks={"team": told(tmp_path, team)}) as w:
        hurry(w)
        team.answers = ["503 Later", "429 Slow Down\r\nretry-after: 0", "200 OK"]
        await deploy(w, await w.ready("coder", "deploy"))
        posts = await team.got(3)
        assert len({post.headers["webhook-id"] for post in posts}) == 1
        for post in posts:
            require_signature(KEY, post.headers, post.body, datetime.now(UTC))
        assert not [r for r in await w.records("administration") if "webhook" in r.event.fields]


async def test_a_message_that_nobody_takes_is_given_up_on_record_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = "/hook/T0KEN?sig=S1GNATURE"
    async with receiver() as team:
        headers = {"Authorization": token(tmp_path)}
        hook = told(tmp_path, team, url=team.url(path), header_files=headers)
        async with world(tmp_path, webhooks={"team": hook}) as w:
            await nobody_takes_them(w, team)
            records = [dict(record.event.fields) for record in await w.records()]
    said = [record.message for record in caplog.records if "webhook `team`" in record.message]
    assert len(said) == 1 and "HTTP 500" in said[0] and team.path_of(0) == path
    assert team.posts[0].headers["authorization"] == "Bearer tk_secret"
    for hidden in ("T0KEN", "S1GNATURE", "tk_secret", base64.b64encode(KEY.key).decode()):
        assert hidden not in caplog.text + json.dumps(records)


async def nobody_takes_them(w: World, team: Receiver) -> None:
    """Two calls are held of which nobody is told, and a third of which somebody is."""
    hurry(w)
    team.answers = ["500 Oops"] * 5 + ["404 Gone"]
    coder = await w.ready("coder", "deploy")
    first = await deploy(w, coder)
    await untold(w, 1)
    assert len(team.posts) == 5
    second = await deploy(w, coder, version="2")
    records = await untold(w, 2)
    assert len(team.posts) == 6  # what a receiver refuses is not sent to it again
    assert [record.event.fields["hold"] for record in records] == [first.hold, second.hold]
    for hold in (first.hold, second.hold):
        await w.answer(hold, by="alice", approve=False)
    third = await deploy(w, coder, version="3")
    *_, opened = await team.got(7)
    assert opened.json["data"]["hold"] == third.hold  # and of the others' ends, which it never heard of, nothing


async def test_nothing_waits_for_a_receiver_that_does_not_answer(tmp_path: Path) -> None:
    async def hang(stream: Any) -> None:
        await anyio.sleep_forever()

    async with receiver() as team, world(tmp_path, webhooks={"team": told(tmp_path, team)}) as w:
        team.serve_with = hang
        coder = await w.ready("coder", "deploy")
        with anyio.fail_after(8):
            held = await deploy(w, coder)
            await w.answer(held.hold, by="alice")
            assert (await w.store.hold(held.hold)).state is HoldState.APPROVED
            await deploy(w, coder)
        assert len(w.deployments()) == 1
