"""Delegating at the command line: one link, made here, and chains that a person can read."""

from __future__ import annotations

import json
import re
import stat
from datetime import timedelta
from pathlib import Path

import anyio.to_thread
import pytest

from mcp_authz.client.delegation import describe
from mcp_authz.installation import utc_now
from mcp_authz.principals import AgentName
from mcp_authz.rules.constraint import permits_call, to_json
from mcp_authz.rules.keys import seal_private
from tests.cli.chains import CODER, PLANNER, TESTER, foreign_chain, key_file, own_chain
from tests.cli.desk import PASSPHRASE, Desk, Done, settle
from tests.world import world

FREE = {"constraint_type": "optional", "constraint": {"constraint_type": "wildcard"}}
OFFLINE = ("--key", "planner.pem", "--chain", "planner.chain", "--to-key", "coder.jwk")


def made(desk: Desk, *words: str) -> str:
    """The chain that `delegate` made from the foreign one, in a file for coder."""
    return desk.ok("delegate", "--to", "coder", *OFFLINE, *words, "-o", "coder.chain")


def test_a_link_is_made_offline_with_the_delegators_key(desk: Desk) -> None:
    foreign_chain(desk)
    told = made(
        desk,
        *("--tools", "acme__open", "--scope", "pr:write", "--where", "repo=api", "--for", "10m"),
        *("--max-calls", "3", "--depth", "1", "--reason", "open it", "--schema", "tools.json"),
    )
    chain = describe(desk.path("coder.chain").read_text())
    leaf = chain.leaf
    assert leaf.holder == CODER.public and leaf.signer == PLANNER.public
    assert leaf.scope == {"pr:write"} and (leaf.max_calls, leaf.max_depth, leaf.reason) == (3, 2, "open it")
    assert timedelta(minutes=9) < leaf.expires_at - utc_now() <= timedelta(minutes=10)
    assert leaf.tools is not None
    assert to_json(leaf.tools)["acme__open"] == {
        "repo": {"constraint_type": "exact", "value": "api"},
        "title": FREE,
        "amount": FREE,
    }
    assert permits_call(leaf.tools, "acme__open", {"repo": "api", "title": "x"}) is None
    assert "coder gets: pr:write\n" in told and "acme__open: repo is api; amount, title free" in told
    assert "may delegate 1 step further" in told and "because: open it" in told
    assert "connect https://gateway.example --agent coder --chain coder.chain" in told.splitlines()[-1]
    assert stat.S_IMODE(desk.path("coder.chain").stat().st_mode) == 0o600


def test_a_chain_on_stdout_can_be_piped_on_and_what_it_says_is_told_beside_it(desk: Desk) -> None:
    foreign_chain(desk)
    done = desk.run("delegate", "--to", "coder", *OFFLINE, "--scope", "pr:read")
    assert done.code == 0 and describe(done.out).leaf.scope == {"pr:read"}
    assert "coder gets: pr:read" in done.err and "next: mcp-authz" in done.err
    shown = desk.run("delegate", "show", "-", stdin=done.out)
    assert shown.code == 0 and "agent:planner" in shown.out


def test_each_holder_gives_less_to_the_next_one(desk: Desk) -> None:
    foreign_chain(desk)
    key_file(desk, "coder.pem", CODER)
    made(desk, "--tools", "acme__open", "--where", "amount=1..100", "--schema", "tools.json", "--depth", "1")
    further = ("delegate", "--to", "tester", "--key", "coder.pem", "--to-key", json.dumps(TESTER.public.jwk))
    desk.ok(*further, "--chain", "coder.chain", "--where", "amount=..5", "-o", "tester.chain")
    tools = describe(desk.path("tester.chain").read_text()).leaf.tools
    assert tools is not None  # neither the schema nor the tool had to be named again
    assert tools["acme__open"]["amount"].to_json() == {"constraint_type": "range", "min": 1, "max": 5}
    refused = desk.refused(*further, "--chain", "coder.chain", "--where", "amount=500")
    assert "argument `amount` of `acme__open` is 500" in refused and "from 1 to 100" in refused
    assert "may not be delegated further" in desk.refused(
        "delegate", "--to", "x", "--as", "tester", "--key", key_file(desk, "tester.pem", TESTER),
        "--chain", "tester.chain", "--to-key", "coder.jwk",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "say"),
    [
        ((), "say who gets it: --to AGENT"),
        (("--to", "coder"), "--as AGENT"),
        (("--to", "coder", *OFFLINE, "--scope", "deploy"), "scope `deploy` is not in the chain"),
        (("--to", "coder", *OFFLINE, "--where", "repo=api"), "say which tools with --tools"),
        (("--to", "coder", *OFFLINE, "--tools", "acme__open", "--where", "repo"), "write one such as repo=api"),
        (("--to", "coder", *OFFLINE, "--tools", "acme__open", "--where", "repo=api"), "--schema FILE"),
        (
            ("--to", "coder", *OFFLINE, "--tools", "acme__open", "--schema", "tools.json", "--where", "branch=x"),
            "it has no argument `branch`; it has `amount`, `repo`, `title`",
        ),
        (("--to", "coder", *OFFLINE, "--schema", "jwks.json"), "has no tools"),
        (("--to", "coder", *OFFLINE, "-o", "planner.pem"), "exists already, and is no chain"),
        (("--to", "coder", *OFFLINE[:3], "missing.chain", *OFFLINE[4:]), "cannot be read"),
        (("--to", "coder", *OFFLINE[:3], "tools.json", *OFFLINE[4:]), "does not hold"),
        (("--to", "coder", "--key", "other.pem", *OFFLINE[2:]), "given to another key"),
        (("--to", "coder", *OFFLINE[:4], "--to-key", "nothing.jwk"), "no file `nothing.jwk`"),
        (("--child", "worker-7", *OFFLINE[:4]), "--to-key FILE"),
        (("--child", "worker-7", "--to", "coder", *OFFLINE), "--to AGENT, or --child NAME"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_said_with_what_to_do(desk: Desk, words: tuple[str, ...], say: str) -> None:
    foreign_chain(desk)
    key_file(desk, "other.pem", TESTER)
    if not words:
        words = ("--depth", "1")
    before = desk.path("planner.pem").read_bytes()
    assert say in desk.refused("delegate", *words)
    assert desk.path("planner.pem").read_bytes() == before


def test_without_its_schema_a_tool_is_given_for_exactly_the_arguments_that_were_typed(desk: Desk) -> None:
    foreign_chain(desk)
    made(desk, "--tools", "acme__open", "--where", "repo=api", "--where", "title?=*", "--exactly")
    tools = describe(desk.path("coder.chain").read_text()).leaf.tools
    assert tools is not None and to_json(tools)["acme__open"].keys() == {"repo", "title"}


def test_a_child_gets_its_name_and_its_key_from_its_parent(desk: Desk) -> None:
    foreign_chain(desk)
    told = desk.ok("delegate", "--child", "worker-7", "--as", "planner", *OFFLINE, "-o", "child.chain")
    assert describe(desk.path("child.chain").read_text()).leaf.child == "worker-7"
    assert "--agent planner/worker-7" in told
    assert "agent:planner/worker-7" in desk.ok("delegate", "show", "child.chain")


def test_a_key_with_a_passphrase_is_opened_at_the_terminal(desk: Desk) -> None:
    foreign_chain(desk)
    desk.path("planner.pem").write_text(seal_private(PLANNER, PASSPHRASE))
    done = desk.seated("delegate", "--to", "coder", *OFFLINE, types=[("passphrase", PASSPHRASE)])
    assert done.code == 0 and describe(done.out).leaf.signer == PLANNER.public
    assert PASSPHRASE not in done.terminal + done.out + done.err


def test_a_chain_is_drawn_without_anything_hidden_and_says_that_the_first_link_was_not_checked(desk: Desk) -> None:
    foreign_chain(desk)
    made(desk, "--reason", "\u202eevil\x1b[31m", "--max-calls", "3")
    shown = desk.ok("delegate", "show", "coder.chain")
    lines = shown.splitlines()
    assert lines[0] == "purpose: fix 41 \\u{202e}" and "session s_1 of https://gateway.example" in lines[1]
    top, planner, coder = (
        next(i for i, line in enumerate(lines) if name in line) for name in ("user:alice", "agent:planner", "key ")
    )
    assert top < planner < coder and CODER.public.thumbprint[:8] in lines[coder]
    assert "every tool that these scopes permit" in shown and "3 calls, may not delegate" in shown
    assert "less than above: calls, depth" in shown and "because: \\u{202e}evil\\u{001b}[31m" in shown
    assert "\u202e" not in shown and "\x1b" not in shown
    assert "the first one was not checked: name the gateway's keys with --jwks" in lines[-1]
    assert "every signature verifies" in desk.ok("delegate", "show", "coder.chain", "--jwks", "jwks.json")


def test_a_drawing_fits_a_terminal(desk: Desk) -> None:
    foreign_chain(desk)
    made(desk, "--tools", "acme__open", "--where", "repo=api|web|docs|infra|site", "--schema", "tools.json")
    narrow = Desk(directory=desk.directory, env={"COLUMNS": "80"})
    done = narrow.seated("delegate", "show", "coder.chain", out="terminal")
    lines = re.sub("\x1b\\[[0-9;]*m", "", done.terminal).splitlines()
    drawn = lines[lines.index("user:alice") : -1]
    assert done.code == 0 and len(drawn) > 8 and max(map(len, drawn)) <= 80


@pytest.mark.parametrize("how", ["signature", "claims", "order", "cut", "root"])
def test_a_chain_that_was_tampered_with_is_not_shown(desk: Desk, how: str) -> None:
    foreign_chain(desk)
    made(desk)
    root, link = desk.path("coder.chain").read_text().split()
    head, claims, signature = link.split(".")
    other = foreign_chain(desk, max_depth=1).read_text().strip()
    text = {
        "signature": f"{root}\n{head}.{claims}.{'A' * 86}",
        "claims": f"{root}\n{head}.{claims[:-8]}{claims[-4:]}{claims[-8:-4]}.{signature}",
        "order": f"{link}\n{root}",
        "cut": link,
        "root": f"{other}\n{link}",
    }[how]
    desk.path("forged.chain").write_text(text)
    said = desk.refused("delegate", "show", "forged.chain")
    assert "`forged.chain` does not hold, do not use it: " in said
    assert "does not hold" in desk.refused("delegate", "--to", "x", *OFFLINE[:3], "forged.chain", *OFFLINE[4:])


def test_a_root_of_somebody_else_is_seen_with_the_keys_of_the_gateway(desk: Desk) -> None:
    foreign_chain(desk)
    desk.path("jwks.json").write_text(json.dumps({"keys": [TESTER.public.jwk]}))
    assert "not signed by a key of this gateway" in desk.refused(
        "delegate", "show", "planner.chain", "--jwks", "jwks.json"
    )


def test_an_expired_chain_is_shown_as_what_it_was_and_cannot_be_delegated(desk: Desk) -> None:
    past = utc_now().replace(microsecond=0) - timedelta(hours=2)
    foreign_chain(desk, issued_at=past, expires_at=past + timedelta(hours=1))
    shown = desk.ok("delegate", "show", "planner.chain")
    assert "ended " in shown and "good for nothing any more" in shown
    assert desk.json("delegate", "show", "planner.chain")["state"] == "expired"
    assert "the chain ended at" in desk.refused("delegate", "--to", "coder", *OFFLINE)


async def test_on_the_machine_of_the_gateway_keys_tools_and_names_are_at_hand(desk: Desk) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        await own_chain(desk, here, cast)
    key_file(desk, "data/agents/planner.pem", cast.planner)
    asked = ("delegate", "--as", "planner", "--chain", "planner.chain", "--tools", "acme__open", "--where", "amount=5")
    desk.ok(*asked, "--to", "coder", "-o", "coder.chain")
    chain = describe(desk.path("coder.chain").read_text())
    assert chain.leaf.holder == cast.coder.public and chain.leaf.tools is not None
    assert chain.leaf.tools["acme__open"]["amount"].to_json() == {"constraint_type": "exact", "value": 5}
    shown = desk.ok("delegate", "show", "coder.chain")
    assert "└── agent:coder" in shown and "every signature verifies" in shown
    document = desk.json("delegate", "show", "coder.chain")
    assert document["verified"] == "all" and document["links"][1]["holder"] == "agent:coder"
    assert document["links"][1]["narrowed"] == ["tools", "arguments", "time", "depth"]
    assert "there is no agent `nobody`" in desk.refused(*asked, "--to", "nobody")
    warned = desk.run(*asked, "--to", "planner", "--tools", "acme__close", "--where", "acme__open.repo=api")
    assert warned.code == 1 and "tool `acme__close`: its arguments are not known here" in warned.sentence
    warned = desk.run(*asked[:5], "--to", "planner", "--tools", "acme__close")
    assert warned.code == 0 and "planner may not delegate to planner" in warned.err
    assert "no tool `acme__close` is known" in warned.err


async def test_what_is_over_a_ceiling_is_refused_where_it_is_known_with_the_scope_that_fits(desk: Desk) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        await own_chain(desk, here, cast)
    key_file(desk, "data/agents/planner.pem", cast.planner)
    asked = ("delegate", "--as", "planner", "--chain", "planner.chain", "-o", "coder.chain")
    desk.ok("agent", "edit", "coder", "--ceiling", "files:read:a files:read:b")
    refused = desk.refused(*asked, "--to", "coder")
    assert "`deploy:production` `files:read` is over the ceiling of `coder`" in refused
    assert "give what fits: --scope 'files:read:a files:read:b'" in refused and not desk.path("coder.chain").exists()
    desk.ok(*asked, "--to", "coder", "--scope", "files:read:a files:read:b")
    by_key = ("--to", "reviewer", "--to-key", json.dumps(cast.coder.public.jwk))
    assert "over the ceiling of `coder`" in desk.refused(*asked, *by_key)
    desk.ok("agent", "edit", "coder", "--ceiling", "other")
    assert "nothing of it fits; see: mcp-authz" in desk.refused(*asked, "--to", "coder")
    desk.ok("agent", "edit", "planner", "--ceiling", "files:read")
    child = ("--child", "worker-7", "--to-key", json.dumps(CODER.public.jwk))
    refused = desk.refused(*asked, *child)
    assert "`deploy:production` is over the ceiling of `planner`" in refused and "--scope files:read" in refused
    desk.ok(*asked, *child, "--scope", "files:read")


async def test_a_gateway_elsewhere_gives_the_chain_and_the_key_of_the_delegate(desk: Desk, tmp_path: Path) -> None:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    async with world(directory) as w:
        planner = await w.ready("planner", "pr:read", depth=1, delegates_to=frozenset({AgentName("coder")}))
        coder = await w.agent("coder", ceiling="pr:read")
        issuer = w.url.removesuffix("/mcp")
        asked = ("delegate", "--as", "planner", "--key", key_file(desk, "planner.pem", planner.key), "--url", issuer)

        async def run(*words: str | Path) -> Done:
            return await anyio.to_thread.run_sync(lambda: desk.run(*words))

        made_ = await run(*asked, "--to", "coder", "--save-chain", "planner.chain", "-o", "coder.chain")
        nobody = await run(*asked, "--to", "nobody")
        shown = await run("delegate", "show", "coder.chain", "--jwks", f"{issuer}/jwks.json")
    assert made_.code == 0 and f"connect {issuer} --agent coder" in made_.out, made_
    assert "every signature verifies" in shown.out and "knows no agent `nobody`" in nobody.sentence
    leaf = describe(desk.path("coder.chain").read_text()).leaf
    assert (leaf.holder, leaf.signer) == (coder.key.public, planner.key.public)
    again = ("--chain", "planner.chain", "--to-key", json.dumps(CODER.public.jwk))  # the gateway is gone by now
    assert desk.run(*asked[:5], "--to", "coder", *again).code == 0
    gone = desk.refused(*asked, "--to", "coder")
    assert "no gateway answers" in gone and "--chain FILE" in gone


def test_looking_at_a_chain_makes_nothing_on_a_machine_that_has_nothing(desk: Desk) -> None:
    foreign_chain(desk)
    desk.ok("delegate", "show", "planner.chain")
    made(desk)
    assert not desk.path("data").exists()
