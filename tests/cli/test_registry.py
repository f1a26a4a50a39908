"""People, agents, grants and sessions at the command line."""

from __future__ import annotations

import os
import stat

import pytest

from mcp_authz.rules.keys import PrivateKey, open_private
from tests.cli.desk import PASSPHRASE, Desk, settle


def test_the_first_steps_of_an_installation_work_as_each_one_says(desk: Desk) -> None:
    assert "next: mcp-authz" in desk.ok("user", "add", "alice", "--group", "dev")
    enrolled = desk.ok(
        "agent", "add", "coder", "--owner", "alice", "--new-key", "coder.pem", "--ceiling", "files:read files:write"
    )
    assert "agent coder is enrolled, owned by alice" in enrolled
    assert "grant add --subject alice --agent coder --scope 'files:read files:write'" in enrolled
    granted = desk.ok("grant", "add", "--subject", "alice", "--agent", "coder", "--scope", "files:read", "--for", "30d")
    assert "session start --agent coder --subject alice" in granted
    desk.ok("session", "start", "--agent", "coder", "--subject", "alice", "--purpose", "fix 41", "--max-calls", "5")
    (session,) = desk.json("session", "list")
    assert (session["state"], session["purpose"], session["max_calls"]) == ("open", "fix 41", 5)
    tree = desk.ok("session", "show", session["id"])
    assert "user:alice" in tree and "agent:coder" in tree and "files:read" in tree and "0 of 5 calls" in tree


def test_a_new_key_is_for_its_owner_only_and_is_the_one_that_was_enrolled(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--new-key", "coder.pem")
    assert stat.S_IMODE(desk.path("coder.pem").stat().st_mode) == 0o600
    key = PrivateKey.from_pem(desk.path("coder.pem").read_text())
    assert desk.json("agent", "show", "coder")["keys"][0]["thumbprint"] == key.public.thumbprint
    before = desk.path("coder.pem").read_bytes()
    assert "not overwritten" in desk.refused("agent", "rotate", "coder", "--new-key", "coder.pem")
    assert desk.path("coder.pem").read_bytes() == before


def test_a_key_file_does_not_stay_behind_when_the_agent_could_not_be_enrolled(desk: Desk) -> None:
    assert "no active person `nobody`" in desk.refused("agent", "add", "x", "--owner", "nobody", "--new-key", "x.pem")
    assert not desk.path("x.pem").exists()


def test_a_public_key_is_taken_as_text_or_from_a_file(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    first, second = PrivateKey.generate(), PrivateKey.generate()
    desk.path("second.jwk").write_text(str(second.public.jwk).replace("'", '"'))
    raw = first.public.jwk["x"]
    desk.ok("agent", "add", "one", "--owner", "alice", "--public-key", raw)
    desk.ok("agent", "add", "two", "--owner", "alice", "--public-key", "second.jwk")
    assert desk.json("agent", "show", "one")["keys"][0]["thumbprint"] == first.public.thumbprint
    assert desk.json("agent", "show", "two")["keys"][0]["thumbprint"] == second.public.thumbprint
    desk.path("private.pem").write_text(first.to_pem())
    assert "PUBLIC KEY" in desk.refused("agent", "add", "three", "--owner", "alice", "--public-key", "private.pem")
    assert "belongs to somebody" in desk.refused("agent", "add", "three", "--owner", "alice", "--public-key", raw)


def test_a_key_may_be_made_right_where_connect_and_delegate_look_for_it(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "planner", "--owner", "alice", "--new-key", "data/agents/planner.pem")
    folder, key = desk.path("data/agents"), desk.path("data/agents/planner.pem")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, key)] == [0o700, 0o600]
    assert "cannot be written" in desk.refused("agent", "rotate", "planner", "--new-key", "no/such/folder/k.pem")


def test_roles_of_the_configuration_add_to_the_ceiling(desk: Desk) -> None:
    desk.configure('data_dir = "data"\n[roles]\nreader = ["files:read", "git:read"]\n')
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--role", "reader", "--ceiling", "git:write", "--label", "a=b")
    shown = desk.json("agent", "show", "coder")
    assert shown["ceiling"] == ["files:read", "git:read", "git:write"] and shown["labels"] == {"a": "b"}
    assert "there are: reader" in desk.refused("agent", "add", "x", "--owner", "alice", "--role", "writer")


def test_after_a_rotation_the_old_key_retires(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--new-key", "one.pem")
    desk.ok("agent", "rotate", "coder", "--new-key", "two.pem", "--overlap", "0m")
    old, new = desk.json("agent", "show", "coder")["keys"]
    assert old["retires_at"] is not None and new["retires_at"] is None


def test_the_audit_log_names_the_operating_systems_user_whatever_the_environment_says(desk: Desk) -> None:
    liar = Desk(directory=desk.directory, env={"LOGNAME": "somebody", "USER": "somebody"})
    liar.ok("user", "add", "alice")
    (record,) = desk.json("audit", "list")
    assert record["fields"]["by"].startswith("user:") and record["fields"]["by"] != "user:somebody"


def test_an_approvers_key_is_sealed_with_what_was_typed_twice(desk: Desk) -> None:
    desk.ok("user", "add", "bob")
    twice = [("passphrase", PASSPHRASE), ("same again", PASSPHRASE)]
    done = desk.seated("user", "key", "bob", "bob.key", types=twice)
    assert done.code == 0 and not done.err and PASSPHRASE not in done.terminal + done.out
    assert stat.S_IMODE(desk.path("bob.key").stat().st_mode) == 0o600
    key = open_private(desk.path("bob.key").read_text(), PASSPHRASE)
    assert desk.json("user", "show", "bob")["keys"][0]["thumbprint"] == key.public.thumbprint


@pytest.mark.parametrize(
    ("typed", "why"),
    [(("one passphrase", "another one"), "differ"), (("",), "at least 8"), (("seven77",), "at least 8")],
)
def test_an_approvers_key_is_not_made_without_a_passphrase(desk: Desk, typed: tuple[str, ...], why: str) -> None:
    desk.ok("user", "add", "bob")
    prompts = zip(("passphrase", "same again"), typed, strict=False)
    done = desk.seated("user", "key", "bob", "bob.key", types=list(prompts))
    assert done.code == 1 and why in done.sentence
    assert not desk.path("bob.key").exists() and desk.json("user", "show", "bob")["keys"] == []


def test_an_approvers_key_is_not_made_without_a_terminal(desk: Desk) -> None:
    desk.ok("user", "add", "bob")
    done = desk.run("user", "key", "bob", "bob.key", stdin=f"{PASSPHRASE}\n{PASSPHRASE}\n")
    assert done.code == 1 and "at a terminal only" in done.sentence
    assert not desk.path("bob.key").exists()


async def test_a_session_is_drawn_as_the_tree_of_its_delegations(desk: Desk) -> None:
    async with desk.open() as here:
        cast = await settle(here)
    desk.ok("revoke", "link", cast.leaf.id, "--reason", "done")
    lines = desk.ok("session", "show", cast.session.id).splitlines()
    names = ("user:alice", "agent:planner", "agent:coder")
    top, planner, coder = (next(i for i, line in enumerate(lines) if name in line) for name in names)
    assert top < planner < coder
    assert "open" in lines[planner] and "revoked" in lines[coder] and cast.leaf.id in lines[coder]
    assert lines[coder].index("agent:coder") > lines[planner].index("agent:planner") > lines[top].index("user:alice")
    links = desk.json("session", "show", cast.session.id)["links"]
    assert [(link["holder"], link["state"]) for link in links] == [("planner", "open"), ("coder", "revoked")]


def test_which_of_several_grants_is_meant_is_never_guessed(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--ceiling", "a b")
    add = ("grant", "add", "--subject", "alice", "--agent", "coder", "--scope")
    assert "--grant" not in desk.ok(*add, "a")
    next_one = desk.ok(*add, "b").splitlines()[-1]
    start = ("session", "start", "--agent", "coder", "--subject", "alice", "--purpose", "x")
    several = desk.refused(*start)
    assert "2 active grants" in several and "name one with --grant ID" in several
    first, second = (it["id"] for it in sorted(desk.json("grant", "list"), key=lambda it: str(it["scope"])))
    assert next_one.endswith(f"--grant {second}")
    desk.ok(*start, "--grant", second[:20])
    assert desk.json("session", "list")[0]["grant"] == second != first


def test_colours_and_short_ids_are_for_terminals_only(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--ceiling", "a", "--new-key", "k.pem")
    desk.ok("grant", "add", "--subject", "alice", "--agent", "coder", "--scope", "a")
    (grant,) = desk.json("grant", "list")
    piped = desk.ok("grant", "list")
    assert grant["id"] in piped and "\x1b" not in piped
    at_terminal = Desk(directory=desk.directory, env={"TERM": "xterm-256color", "COLUMNS": "60"})
    shown = at_terminal.seated("grant", "list", out="terminal").terminal
    assert "\x1b[" in shown and grant["id"] not in shown and grant["id"][:8] in shown


def test_what_agents_wrote_cannot_act_on_the_terminal(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--ceiling", "a", "--new-key", "k.pem")
    desk.ok("grant", "add", "--subject", "alice", "--agent", "coder", "--scope", "a")
    purpose = "fix \x1b[2J [red]it\u202e"
    desk.ok("session", "start", "--agent", "coder", "--subject", "alice", "--purpose", purpose)
    (session,) = desk.json("session", "list")
    assert session["purpose"] == purpose
    printed = desk.ok("session", "list") + desk.ok("session", "show", session["id"]) + desk.ok("audit", "list")
    assert "\x1b" not in printed and "\u202e" not in printed and "[red]" in printed


def test_times_are_local_for_people_and_utc_in_json(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    assert " CE" in desk.ok("audit", "list")  # CET or CEST: the desk is in Berlin
    assert desk.json("audit", "list")[0]["at"].endswith("Z")


@pytest.mark.skipif(os.name == "nt", reason="paths")
def test_the_next_command_can_be_pasted(desk: Desk) -> None:
    said = desk.ok("user", "add", "alice").splitlines()[-1]
    assert said.startswith(f"next: mcp-authz --config {desk.config} user passkey alice")
