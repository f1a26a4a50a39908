"""`mcp-authz webhooks`: what is configured, whether it is heard, and no secret in what is printed."""

from __future__ import annotations

import json
import stat

import anyio
import anyio.to_thread

from tests.cli.desk import Desk
from tests.cli.test_commands_doc import keys
from tests.webhooks.receiver import receiver, secret

PATH = "/services/T0KEN?sig=S1GNATURE"


async def test_a_webhook_is_listed_and_tried_without_a_word_of_its_secrets(desk: Desk) -> None:
    async with receiver() as team:
        desk.path("chat.url").write_text(team.url(PATH) + "\n")
        desk.path("chat.url").chmod(0o600)
        out, back = secret(desk.directory, "out.whsec", 1), secret(desk.directory, "back.whsec", 2)
        desk.configure(
            f"""data_dir = "data"
[webhooks.chat]
url_file = "chat.url"
template = "slack"
[webhooks.team]
url = "{team.url()}"
tells = "everything"
rules = ["destructive"]
secret_file = "{out}"
callback_secret_file = "{back}"
people = {{ U1 = "alice" }}
"""
        )
        printed = [await anyio.to_thread.run_sync(desk.ok, "webhooks", "list")]
        listed = await anyio.to_thread.run_sync(desk.json, "webhooks", "list")
        tried = await anyio.to_thread.run_sync(desk.ok, "webhooks", "test", "chat")
        team.answers = ["403 Forbidden"]
        refused = await anyio.to_thread.run_sync(desk.run, "webhooks", "test", "team", "--json")
    host = f"localhost:{team.port}"
    chat, program = listed
    assert (chat["host"], chat["signed"], chat["verdict_url"]) == (host, False, None)
    assert program["verdict_url"] == "http://localhost:8642/webhooks/team/verdict" and program["signed"]
    assert tried == f"{host} took the message (HTTP 204)\n"
    assert refused.code == 1
    assert refused.json == {
        "name": "team",
        "host": host,
        "taken": False,
        "status": 403,
        "error": "it answers with HTTP 403",
    }
    assert set(chat) == keys("mcp-authz webhooks list") and set(refused.json) == keys("mcp-authz webhooks test")
    first, second = team.posts
    assert first.path == PATH and first.json["blocks"] and second.json["type"] == "webhook.test"
    everything = "".join([*printed, json.dumps(listed), tried, refused.out, refused.err])
    for hidden in ("T0KEN", "S1GNATURE", "whsec_"):
        assert hidden not in everything


def test_a_secret_is_written_for_its_owner_alone_and_none_is_written_over(desk: Desk) -> None:
    said = desk.ok("webhooks", "secret", desk.path("new.whsec"))
    written = desk.path("new.whsec").read_text()
    assert written.startswith("whsec_") and written.strip() not in said
    assert stat.S_IMODE(desk.path("new.whsec").stat().st_mode) == 0o600
    assert "is there already" in desk.refused("webhooks", "secret", desk.path("new.whsec"))
    assert desk.path("new.whsec").read_text() == written
    assert "there is no webhook `team`" in desk.refused("webhooks", "test", "team")


def test_doctor_says_which_file_of_a_webhook_is_open_or_missing(desk: Desk) -> None:
    out = secret(desk.directory, "out.whsec")
    hook = f'data_dir = "data"\n[webhooks.team]\nurl = "https://bot.example.com/"\nsecret_file = "{out}"\n'
    desk.configure(hook)
    desk.path("out.whsec").chmod(0o644)
    said = desk.run("doctor", "--json").json["findings"]
    assert any(f"chmod 600 {out}" == one["do"] for one in said)
    assert any(one["part"] == "webhooks" and one["state"] == "broken" for one in said)
    desk.path("out.whsec").unlink()
    said = desk.run("doctor", "--json").json["findings"]
    assert any(one["part"] == "webhooks" and "cannot be read" in one["text"] for one in said)
