"""How agents come to keys at the command line: one-time codes, the key that `connect` keeps, documents elsewhere."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import anyio.to_thread

from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.client.rotation import draft_of
from mcp_authz.enrolment import Codes
from mcp_authz.principals import AgentName
from mcp_authz.rules.jose import read
from mcp_authz.rules.keys import PrivateKey
from tests.cli.desk import Desk, Done
from tests.oauth.house import OPERATOR, Actor, House, house
from tests.world import world


async def there(desk: Desk, *words: str | Path, stdin: str = "") -> Done:
    """A command on the machine where the agent is: there is no configuration."""
    run = partial(desk.run, *words, global_options=[], stdin=stdin)
    return await anyio.to_thread.run_sync(run)


async def announced(h: House) -> str:
    await h.person("alice")
    await h.agents.add("coder", owner="alice", by=OPERATOR)
    return (await Codes(h.store, h.clock).make(AgentName("coder"), by=OPERATOR)).text


def kept(desk: Desk) -> Path:
    """Where `connect` keeps the agent's key on a machine without a configuration."""
    return desk.path("home/.local/share/mcp-authz/agents/coder.pem")


def test_an_agent_without_a_key_comes_with_a_code_and_the_command_that_uses_it(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    said = desk.ok("agent", "add", "coder", "--owner", "alice")
    (code,) = [line.split()[1].rstrip(",") for line in said.splitlines() if line.startswith("code ")]
    assert f"next: mcp-authz agent enrol http://localhost:8642 --agent coder --code {code}" in said
    newer = desk.json("agent", "code", "coder")
    assert newer["code"] != code and newer["command"].endswith(newer["code"]) and newer["agent"] == "coder"
    log = desk.ok("audit", "list", "--json")
    assert code not in log and newer["code"] not in log and "one-time code" in log


def test_a_code_is_for_an_agent_that_is_there_and_has_no_key(desk: Desk) -> None:
    assert "there is no agent `coder`" in desk.refused("agent", "code", "coder")
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--new-key", "coder.pem")
    assert "has a key already" in desk.refused("agent", "code", "coder")


async def test_the_command_that_was_printed_enrols_the_agent_where_it_is(desk: Desk, tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        code = await announced(h)
        done = await there(desk, "agent", "enrol", h.issuer, "--agent", "coder", "--code", code)
        assert done.code == 0 and not done.err, done
        assert f"next: mcp-authz connect {h.resource} --agent coder" in done.out and code not in done.out
        assert stat.S_IMODE(kept(desk).stat().st_mode) == 0o600
        await h.sign_in(Actor(AgentName("coder"), load_key(kept(desk))))
        again = await there(desk, "agent", "enrol", h.issuer, "--agent", "coder", "--code", code, "--json")
        assert again.json["key"] == load_key(kept(desk)).public.thumbprint


async def test_a_code_is_read_from_stdin_and_a_key_that_is_there_is_the_one(desk: Desk, tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        code, key = await announced(h), PrivateKey.generate()
        save_key(desk.path("mine.pem"), key, replace=False)
        done = await there(
            desk, "agent", "enrol", h.resource, "--agent", "coder", "--key", "mine.pem", stdin=f"{code}\n"
        )
        assert done.code == 0 and str(desk.path("mine.pem")) in done.out, done
        await h.sign_in(Actor(AgentName("coder"), key))


async def test_a_code_that_is_refused_leaves_no_key_behind(desk: Desk, tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await announced(h)
        done = await there(desk, "agent", "enrol", h.issuer, "--agent", "coder", "--code", "a" * 26)
        assert done.code == 1 and "mcp-authz agent code" in done.sentence and "wrong, used or expired" in done.sentence
        assert not kept(desk).exists()
        done = await there(desk, "agent", "enrol", h.issuer, "--agent", "../coder", "--code", "a" * 26)
        assert done.code == 1 and "agent's name" in done.sentence


def test_where_no_gateway_answers_nothing_is_sent(desk: Desk) -> None:
    done = desk.run("agent", "enrol", "http://localhost:9", "--agent", "coder", "--code", "x", global_options=[])
    assert done.code == 1 and "no gateway answers" in done.sentence
    done = desk.run("agent", "enrol", "http://example.com", "--agent", "coder", "--code", "x", global_options=[])
    assert done.code == 1 and "plain http is for localhost only" in done.sentence


def test_the_key_that_connect_keeps_is_replaced_where_it_is(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    path = desk.path("data/agents/coder.pem")
    path.parent.mkdir(parents=True)
    desk.ok("agent", "add", "coder", "--owner", "alice", "--new-key", path)
    old = load_key(path)
    assert str(path) in desk.ok("agent", "rotate", "coder")
    new = load_key(path)
    assert new.public != old.public and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [key["retires_at"] is None for key in desk.json("agent", "show", "coder")["keys"]] == [False, True]
    assert "wait until one has retired" in desk.refused("agent", "rotate", "coder")
    assert load_key(path).public == new.public and not draft_of(path).exists()


def test_a_rotation_that_was_interrupted_is_finished_by_the_next_one(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    path, new = desk.path("data/agents/coder.pem"), PrivateKey.generate()
    path.parent.mkdir(parents=True)
    desk.ok("agent", "add", "coder", "--owner", "alice", "--new-key", path)
    save_key(draft_of(path), new, replace=False)
    desk.ok("agent", "rotate", "coder", "--public-key", new.public.jwk["x"])  # as far as it got
    desk.ok("agent", "rotate", "coder")
    assert load_key(path).public == new.public and not os.path.lexists(draft_of(path))
    assert len(desk.json("agent", "show", "coder")["keys"]) == 2


def test_a_document_elsewhere_is_asked_for_only_where_it_may_be(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    add = ("agent", "add", "coder", "--owner", "alice", "--metadata-url")
    for url, why in (
        ("http://agents.example.com/coder", "https"),
        ("https://127.0.0.1/coder", "full name of a host"),
        ("https://localhost.localdomain/coder", "address"),
    ):
        assert why in desk.refused(*add, url)
    assert desk.run(*add, "https://agents.example.com/coder", "--new-key", "x.pem").code == 2
    assert desk.json("agent", "list") == []
    desk.ok("agent", "add", "planner", "--owner", "alice", "--new-key", "p.pem")
    assert "agent rotate" in desk.refused("agent", "refresh", "planner")
    assert "agent list" in desk.refused("agent", "refresh", "nobody")


async def test_a_token_is_of_the_session_that_is_named_and_of_none_where_several_are_not(
    desk: Desk, tmp_path: Path
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read:acme:api")
        session, _ = await w.start(await w.grant("alice", "coder", "pr:read:acme:api"))
        save_key(desk.path("coder.pem"), coder.key, replace=False)
        there = desk.path("there.toml")
        there.write_text(f'public_url = "{w.config.public_url}"\n')
        config = ["--config", str(there)]
        token = partial(desk.run, "agent", "token", "coder", "--key", "coder.pem", global_options=config)
        named = await anyio.to_thread.run_sync(partial(token, "--session", session.id))
        assert (named.code, named.err) == (0, "") and read(named.out.strip()).claims["sid"] == session.id
        unnamed = await anyio.to_thread.run_sync(token)
        assert unnamed.code == 0 and "sid" not in read(unnamed.out.strip()).claims
        assert "is of no session" in unnamed.err and "--session ID" in unnamed.err
