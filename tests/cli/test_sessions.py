"""Sessions and what agents may have, as an operator types them."""

from __future__ import annotations

import pytest

from mcp_authz.installation import utc_now
from mcp_authz.rules.definition import definition_digest
from mcp_authz.store.ports import Event, Pin
from tests.cli.desk import Desk


@pytest.fixture
def ready(desk: Desk) -> Desk:
    """Alice owns a planner and lets it act for her."""
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "planner", "--owner", "alice", "--ceiling", "files", "--depth", "2", "--new-key", "p.pem")
    desk.ok("grant", "add", "--subject", "alice", "--agent", "planner", "--scope", "files")
    return desk


async def listed(desk: Desk) -> None:
    """A server has listed a tool with two arguments."""
    schema = {"type": "object", "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}}}
    definition = {"name": "read", "inputSchema": schema}
    digest = definition_digest(definition)
    async with desk.open() as here:
        seen = Pin(server="files", tool="read", digest=digest, definition=definition, seen_at=utc_now())
        await here.store.pin_first([seen], Event(kind="pin", at=utc_now()))


def start(desk: Desk, *options: str) -> str:
    return desk.ok("session", "start", "--agent", "planner", "--purpose", "test", *options)


async def test_a_session_is_bounded_in_every_dimension_and_shows_it(ready: Desk) -> None:
    await listed(ready)
    more = ("--scope", "files:read", "--depth", "1", "--max-calls", "5", "--for", "1h")
    said = start(ready, "--subject", "alice", "--tools", "files__read", "--where", "path=under:/srv", *more)
    assert "planner works for alice until" in said and "only files__read: path under /srv; lines free" in said
    (session,) = ready.json("session", "list")
    shown = ready.ok("session", "show", session["id"])
    assert "only files__read: path under /srv; lines free" in shown and "may delegate 1 further" in shown
    assert "0 of 5 calls" in shown and "mode: delegated, planner works for alice" in shown


async def test_a_grant_says_what_arguments_have_to_be(ready: Desk) -> None:
    await listed(ready)
    said = ready.ok(
        "grant", "add", "--subject", "alice", "--agent", "planner", "--scope", "files:read",
        "--tools", "files__read", "--where", "path=a.txt",
    )  # fmt: skip
    assert "only files__read: path is a.txt; lines free" in said
    grant = next(one for one in ready.json("grant", "list") if one["tools"])
    assert "files__read: path is a.txt; lines free" in ready.ok("grant", "show", grant["id"])


def test_an_agent_is_started_for_itself(ready: Desk) -> None:
    assert "planner works for itself until" in start(ready, "--own", "--scope", "files:read")
    (session,) = ready.json("session", "list")
    stopped = ready.ok("revoke", "session", session["id"], "--reason", "test", "--dry-run")
    assert "would stop: agent planner for itself, test" in stopped
    assert (session["mode"], session["subject"]) == ("own", None)
    shown = ready.ok("session", "show", session["id"])
    assert "mode: own, planner works for itself" in shown and "agent:planner" in shown
    assert "itself" in ready.ok("session", "list") and "itself" in ready.ok("grant", "list")


REFUSED = {
    (): "say for whom",
    ("--own",): "--own needs --scope",
    ("--own", "--scope", "files", "--subject", "alice"): "without a person",
    ("--own", "--scope", "files", "--impersonate"): "without a person",
    ("--own", "--scope", "deploy"): "agent show planner",
    ("--subject", "alice", "--impersonate"): "does not let `planner` impersonate `alice`",
    ("--subject", "alice", "--where", "path=a"): "name them with --tools",
    ("--subject", "alice", "--depth", "3"): "2 steps at most",
}


def test_options_that_do_not_go_together_say_what_would(ready: Desk) -> None:
    for options, said in REFUSED.items():
        done = ready.run("session", "start", "--agent", "planner", "--purpose", "x", *options)
        assert done.code != 0 and said in done.err and not done.out, done
    assert ready.json("session", "list") == []


def test_an_agent_works_in_a_persons_place_where_the_configuration_says_so(ready: Desk) -> None:
    entry = '[[impersonation]]\nagent = "planner"\nperson = "alice"\nscopes = ["files:read"]\n'
    config = ready.path("gateway.toml")
    config.write_text(config.read_text() + "\n" + entry)
    refused = ready.refused(
        "session", "start", "--agent", "planner", "--subject", "alice", "--purpose", "x", "--impersonate"
    )
    assert "with these scopes" in refused
    said = start(ready, "--subject", "alice", "--impersonate", "--scope", "files:read")
    assert "planner works in the place of alice" in said
    assert ready.json("session", "list")[0]["mode"] == "impersonated"


def test_what_an_agent_may_have_is_changed_and_shown(ready: Desk) -> None:
    config = ready.path("gateway.toml")
    config.write_text(config.read_text() + '\n[roles]\nreader = ["time:read"]\n')
    said = ready.ok("agent", "edit", "planner", "--role", "reader", "--depth", "1", "--may-delegate-to", "coder")
    assert "may have: files time:read" in said and "depth 1, delegates to coder" in said
    assert "reader (time:read)" in ready.ok("agent", "show", "planner")
    assert ready.json("agent", "edit", "planner", "--no-delegates")["delegates_to"] == []
    config.write_text(config.read_text().replace('["time:read"]', '["time", "git:read"]'))
    assert "has more in [roles] by now" in ready.ok("agent", "show", "planner")
    assert "say what becomes otherwise" in ready.run("agent", "edit", "planner").err


def test_what_is_in_the_way_of_a_session_is_said_with_where_to_change_it(ready: Desk) -> None:
    ready.ok("user", "add", "bob")
    begin = ("session", "start", "--agent", "planner", "--purpose", "test", "--subject")
    assert "`bob` has no active grant to `planner`; `mcp-authz grant add` makes one" in ready.refused(*begin, "bob")
    assert "an [[impersonation]] table" in ready.refused(*begin, "alice", "--impersonate")
    assert "agent show planner" in ready.refused(*begin, "alice", "--depth", "3")
