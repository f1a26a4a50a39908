"""Row 44, everything at once: secrets go through a gateway with all it has switched on, and every byte is searched.

Each place has a secret of its own, so that what is found says where it came from. Who may read what is said by name:
`MEANT` are the only outputs in which arguments stand, and they are for whoever answers a held call or asks what its
policy was told.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError

from mcp_authz.protocol.answers import ENVELOPE
from tests.attacks.attacker import answer_in, spy, tool
from tests.attacks.canaries import Canaries
from tests.attacks.test_44_secrets_written_down import written
from tests.cli.desk import Desk
from tests.road.places import plain
from tests.road.test_offers import bookshelf
from tests.road.test_prompt import Person
from tests.road.test_telemetry import collector
from tests.webhooks.receiver import receiver
from tests.webhooks.test_sending import told
from tests.world import LEGACY, World, world

PLACES = (
    "field nested long deep extra unknown denied held_field env env_file header cookie custom result failure refused "
    "progress answer bearer query path legacy name"
)
SHAPED = "value resource prompt purpose intent reason client uri"
JWT = re.compile(rb"eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
MEANT = {
    # Whoever answers a held call sees all of it; the bundle proves what they saw.
    "holds show": {"held_field", "reason"},
    "holds export": {"held_field", "reason"},
    # The conditions of a policy that is suggested are values of attributes that the operator declared.
    "policy suggest": {"resource"},
    # What an approver said with a verdict is signed, and stands in its row as it was.
    "data/": {"reason"},
}
"""Who may read what all the same."""
CLIENTS = ("httpx2", "httpcore2")  # of this test
FORM = {"type": "object", "properties": {"colour": {"type": "string"}}}


def padded(what: dict[str, Any]) -> dict[str, Any]:
    """More than a record shows of one value."""
    return {**what, "pad": "x" * 600}


def servers(directory: Path, c: Canaries) -> dict[str, Any]:
    tools = ("look", "drop", "complain", "refuse", "die")
    known: dict[str, Any] = {it: {} for it in ("password", "deep", "note", "long", "bottom", "dsn", "path", "n")}
    schema = {"type": "object", "properties": known}  # and whatever else
    server = spy(directory / "spy", *(tool(name, inputSchema=schema) for name in tools))
    secret = directory / "secret"
    secret.write_text(f"{c['env_file']}\n")
    secret.chmod(0o600)
    hazards = {name: {"hazard": "destructive" if name == "drop" else "read", "scopes": ["use"]} for name in tools}
    entry = server.config(tools=hazards, env={"PLAIN": c["env"]}, env_files={"TOKEN": str(secret)}, context=True)
    return {"spy": entry, "plain": plain(), "lib": bookshelf()}


def arguments(c: Canaries, **more: Any) -> dict[str, Any]:
    return {
        "password": c["field"],
        "deep": [{"api_key": c["nested"]}],
        "note": f"use {c['value']}, please",
        "long": "x" * 300 + c["long"] + "x" * 300,
        "bottom": [[[[[c["deep"]]]]]],
        "dsn": f"postgres://me:{c['extra']}@db.example.com/x",
        "path": "/srv/x",
        c["name"]: 1,
        **more,
    }


async def work(w: World, c: Canaries) -> None:
    """Calls of every kind and fate, by a delegate of a delegate."""
    scope = "use lib:resources lib:prompts lib:completion"
    planner = await w.ready("planner", scope, delegates_to=["coder"], depth=1)
    coder = await w.agent("coder", ceiling=scope)
    c.add("access token", await w.token(planner))
    c.add("delegated token", await w.delegate(planner, "coder", scope))
    token = c.add("access token", await w.token(coder, scope))
    headers = {"x_custom": c["custom"], "cookie": f"session={c['cookie']}", "x_api_key": c["header"]}
    intent = {"dev.mcp-authz/intent": f"because of {c['intent']}"}
    for name in ("spy__look", "spy__complain", "spy__refuse", "spy__die", "spy__look"):
        await w.raw_call(token, name, arguments(c), headers=headers, meta=intent)
    await w.raw_call(token, f"spy__password={c['unknown']}", arguments(c), headers=headers)
    await w.raw_call(await w.token(await w.agent("mallory", ceiling="none")), "spy__look", {"password": c["denied"]})
    said = {"content": [{"type": "text", "text": c["result"]}], "structuredContent": {"k": c["result"]}}
    await w.raw_call(token, "plain__say", {"result": padded(said)})
    error = {"code": -32000, "message": c["failure"], "data": c["refused"]}
    await w.raw_call(token, "plain__fail", {"error": padded(error)})
    noise = [{"method": "notifications/progress", "params": padded({"progress": 1, "message": c["progress"]})}]
    await w.raw_call(token, "plain__notify", {"notifications": noise}, meta={"progressToken": 1})
    async with w.client(coder, LEGACY, elicitation_callback=Person("accept", {"colour": c["answer"]})) as client:
        asked = {"mode": "form", "message": "Which?", "requestedSchema": FORM}
        await client.call_tool("plain__ask", {"method": "elicitation/create", "params": asked, "password": c["legacy"]})
        await client.read_resource(f"book://shelf/{c['resource']}")
        await client.get_prompt("lib__review", {"title": c["prompt"]})
        with pytest.raises(MCPError):
            await client.read_resource(f"file:///{c['uri']}")
    bad = {"authorization": f"Bearer {c['bearer']}", "x-secret": c["custom"]}
    async with httpx2.AsyncClient(base_url=w.config.public_url) as http:
        for path in (f"/{c['path']}", f"/holds?token={c['query']}", "/", "/holds", "/log", "/authorize", "/healthz"):
            c.look(
                f"GET {path.replace(c['path'], '').replace(c['query'], '')}",
                (await http.get(path, headers=bad)).content,
            )
        c.look("POST /mcp", (await http.post("/mcp", content=b"{}", headers=bad)).content)
        form = {"grant_type": "refresh_token", "refresh_token": c["bearer"], "client_secret": c["client"]}
        c.look("POST /token", (await http.post("/token", data=form, headers=bad)).content)


async def hold(w: World, c: Canaries) -> tuple[str, str]:
    """Two held calls: one that somebody approves and that runs, one that they refuse; both with a secret reason."""
    worker = await w.agent("worker", ceiling="use", owner=await w.person("bob"))
    await w.start(await w.grant("bob", "worker", "use"), purpose=f"try {c['purpose']}")
    token = c.add("access token", await w.token(worker))
    ids = []
    for more, approve in (({"n": 1}, True), ({"n": 2}, False)):
        sent = {"password": c["held_field"], **more}
        held = answer_in(await w.raw_call(token, "spy__drop", sent))["result"]["_meta"][ENVELOPE]["hold"]
        await w.answer(held, by="bob", approve=approve, reason=f"since {c['reason']}")
        await w.raw_call(token, "spy__drop", sent)
        ids.append(held)
        async with httpx2.AsyncClient(base_url=w.config.public_url) as http:
            c.look("a stranger's page of a hold", (await http.get(f"/holds/{held}")).content)
    return ids[0], ids[1]


COMMANDS = (
    *(f"audit export --format {form}" for form in ("chain", "csv", "ocsf")),
    "audit explain CALL --bundle bundle",
    "policy replay --json",
    "policy suggest --agent coder",
    "status",
    "doctor",
    "holds show HOLD",
    "holds export HOLD",
)


async def test_no_secret_that_goes_through_the_gateway_is_in_anything_that_it_writes_or_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    c = Canaries(PLACES, SHAPED, meant=MEANT)
    kept = servers(tmp_path, c)
    with collector() as (endpoint, spans):
        async with (
            receiver() as team,
            world(
                tmp_path,
                servers=kept,
                audit={"arguments": "redacted"},
                otel={"endpoint": endpoint},
                webhooks={"team": told(tmp_path, team)},
            ) as w,
        ):
            await work(w, c)
            approved, _ = await hold(w, c)
            async with httpx2.AsyncClient() as http:
                c.look("/metrics", (await http.get(f"{w.config.public_url}/metrics")).content)
            await team.got(2)
            decisions = await w.decisions()
            call = next(r.event.call for r in await w.records("decision") if r.event.fields["decision"] == "permit")
            await w.app._write_refusals()
            for found in set(JWT.findall((tmp_path / "spy" / "heard").read_bytes())):
                c.add("context token", found.decode())
            for file in sorted((tmp_path / "data").rglob("*")):
                c.look(f"data/{file.name} while it runs", file.read_bytes() if file.is_file() else b"")
    for at, raw in [("a span", body) for body in spans] + [("a webhook", post.body) for post in team.posts]:
        c.look(at, raw)
    for line in caplog.records:
        if not line.name.startswith(CLIENTS):
            c.look(f"a line of {line.name}", f"{line.getMessage()} {line.exc_text}")
    for file in sorted((tmp_path / "data").rglob("*")):
        c.look(f"data/{file.name}", file.read_bytes() if file.is_file() else b"")
    commands(tmp_path, kept, c, call=str(call), hold=approved)
    assert c.found == [], "\n".join(c.found)
    assert {found.partition(" in ")[2].partition("/")[0] for found in c.meant} == {
        "holds show HOLD",
        "holds export HOLD",
        "policy suggest --agent coder",
        "data",
    }
    shown = next(it["argument_values"] for it in decisions if it["decision"] == "permit" and it["tool"] == "spy__look")
    assert shown["path"] == "/srv/x" and shown["password"] == "[redacted]" and shown["long"].startswith("digest:")
    assert spans and len(team.posts) >= 2 and len(JWT.findall((tmp_path / "spy" / "heard").read_bytes())) >= 3


def commands(directory: Path, kept: dict[str, Any], c: Canaries, *, call: str, hold: str) -> None:
    """Every command that prints something of calls, by somebody who may read the store."""
    desk = Desk(directory)
    desk.configure(written({"public_url": "http://localhost:1", "data_dir": "data", "servers": env_of(kept)}))
    for words in COMMANDS:
        done = desk.run(*words.replace("CALL", call).replace("HOLD", hold).split())
        assert "Traceback" not in done.err and (done.out or done.err), (words, done)
        c.look(words, done.out + done.err)
    c.look("the bundle", (directory / "bundle").read_bytes())


def env_of(kept: dict[str, Any]) -> dict[str, Any]:
    """The servers as the file of the configuration has them."""
    return {name: {"env": {}, "env_files": {}, **entry} for name, entry in kept.items()}
