"""Standing approvals at the command line: given with one call, listed, ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_authz.model import HeldCall
from mcp_authz.rules.canonical import digest
from tests.cli.desk import PASSPHRASE, Cast, Desk, held_call, hold, sealed, settle

ASKED = [("passphrase", PASSPHRASE)]


def bound_call(cast: Cast) -> HeldCall:
    """A held call whose action statement is known, as it is of every call that comes in today."""
    call = held_call(cast)
    arguments = {"repo": "acme/api", "environment": "staging", "path": "/srv/x/y", "n": 1}
    statement = {
        "server": "acme",
        "tool": "deploy",
        "definition": "ab" * 32,
        "session": call.session,
        "subject": "user:alice",
        "actor": "agent:coder",
        "chain": ["agent:planner", "agent:coder"],
    }
    return replace(call, arguments=arguments, bound=statement, digest=digest({**statement, "arguments": arguments}))


@pytest.fixture
async def held(desk: Desk) -> HeldCall:
    desk.path("bob.key").write_text(sealed()[1])
    async with desk.open() as here:
        return await hold(here, bound_call(await settle(here)))


async def test_a_person_approves_a_call_and_the_next_few_like_it_and_ends_that_again(
    desk: Desk, held: HeldCall
) -> None:
    key = desk.path("bob.key")
    approve = ("holds", "approve", held.id, "--as", "bob", "--key", key)
    for words, trouble in (
        (("--any", "repo"), "add --standing N"),
        (("--standing", "2", "--any", "nothing"), "has no argument `nothing`"),
        (("--standing", "2", "--one-of", "environment"), "write --one-of ARGUMENT=..."),
        (("--standing", "2", "--one-of", "environment=test"), "must allow the value that this call has too"),
        (("--standing", "101"), "for 1 to 100 calls"),
        (("--standing", "2", "--minutes", "100000"), "ends within 12 hours"),
        (("--standing", "2", "--tool", "x"), "leave --standing or --tool out"),
    ):
        done = desk.seated(*approve, *words)
        assert done.code == 1 and trouble in done.sentence, done
    more = ("--standing", "5", "--minutes", "10", "--any", "repo", "--one-of", "environment=staging,test")
    more = (*more, "--below", "path=/srv/x", "--one-of", "n=1,2")
    done = desk.seated(*approve, *more, types=ASKED)
    assert done.code == 0, done
    permits = (
        'the next 5 calls of acme__deploy by coder in this session, repo any, environment one of "staging" or "test", '
        'path below "/srv/x", n one of 1 or 2, until'
    )
    assert permits in done.terminal and permits in done.out
    assert done.terminal.index(permits) < done.terminal.index("passphrase of bob's key, to approve this and those")
    (listed,) = desk.json("holds", "standing")
    assert listed["permits"].startswith(permits) and (listed["calls"], listed["used"]) == (5, 0)
    assert (listed["person"], listed["state"], listed["hold"]) == ("bob", "active", held.id)
    assert desk.json("holds", "show", held.id)["state"] == "approved"
    text = desk.ok("holds", "standing")
    assert "5 of 5" in text and "revoke approval" in text

    would = desk.json("revoke", "approval", listed["id"][:12], "--reason", "enough", "--dry-run")
    assert would["holds"] == [held.id]  # what it approved has not run
    assert "held again" in desk.ok("revoke", "approval", listed["id"], "--reason", "enough")
    assert desk.json("holds", "show", held.id)["state"] == "cancelled"
    assert desk.json("holds", "standing") == [] and desk.json("holds", "standing", "--all")[0]["state"] == "revoked"
    assert "revoke approval" not in desk.ok("holds", "standing", "--all"), "one that is over is not to be ended again"
    (approved, *_) = desk.json("audit", "list", "--kind", "approval", "--limit", "1")
    assert f"standing approval {listed['id']}" in desk.ok("audit", "list", "--text", approved["fields"]["standing"])
    assert "revoked already" in desk.ok("revoke", "approval", listed["id"], "--reason", "enough")
