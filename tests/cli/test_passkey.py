"""`mcp-authz user passkey`: a one-time link for whoever has no passkey, and loud words for replacing one."""

from __future__ import annotations

from mcp_authz.accounts import Accounts, NewPasskey
from mcp_authz.principals import PersonName
from tests.cli.desk import Desk

ALICE = PersonName("alice")


def token(printed: str) -> str:
    """The token of the link that was printed."""
    line = printed.splitlines()[-1]
    assert line.startswith("http://localhost:8642/welcome/")
    return line.rpartition("/")[2]


async def make_passkey(desk: Desk, printed: str) -> None:
    """What happens on the page once the link is opened."""
    async with desk.open() as here:
        new = NewPasskey(credential=b"credential", public_key=b"public", sign_count=0)
        await Accounts(here.store, here.clock).register_invited(token(printed), new, "Firefox on Linux")


async def test_whoever_has_no_passkey_gets_a_link_that_works_once(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    printed = desk.ok("user", "passkey", "alice")
    await make_passkey(desk, printed)

    assert desk.json("user", "show", "alice")["passkeys"][0]["label"] == "Firefox on Linux"
    sentence = desk.refused("user", "passkey", "alice")
    assert "has a passkey already" in sentence and "http://localhost:8642/passkeys" in sentence
    assert "user passkey alice --replace" in sentence


async def test_replacing_revokes_what_there_is_says_so_and_is_remembered(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    await make_passkey(desk, desk.ok("user", "passkey", "alice"))
    printed = desk.ok("user", "passkey", "alice", "--replace")
    assert printed.startswith("1 passkey of alice revoked; the page says so for a week\n")

    assert [one["status"] for one in desk.json("user", "show", "alice")["passkeys"]] == ["revoked"]
    async with desk.open() as here:
        accounts = Accounts(here.store, here.clock)
        assert await accounts.replaced_lately(ALICE) is not None
        assert (await accounts.invited(token(printed))).person == ALICE
    assert any("were revoked" in str(one["fields"].get("summary")) for one in desk.json("audit", "list"))


def test_nobody_unknown_gets_a_link(desk: Desk) -> None:
    assert "there is no person `mallory`" in desk.refused("user", "passkey", "mallory")


async def test_one_passkey_is_ended_by_the_beginning_of_its_id(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    await make_passkey(desk, desk.ok("user", "passkey", "alice"))
    (known,) = desk.json("user", "show", "alice")["passkeys"]
    assert known["id"][:12] in desk.ok("user", "show", "alice")
    assert "would be revoked" in desk.ok("revoke", "passkey", known["id"][:8], "--reason", "lost", "--dry-run")
    assert "signs nobody in" in desk.ok("revoke", "passkey", known["id"][:8], "--reason", "lost")
    assert "revoked already" in desk.ok("revoke", "passkey", known["id"], "--reason", "lost")
    assert [one["status"] for one in desk.json("user", "show", "alice")["passkeys"]] == ["revoked"]
    (record,) = desk.json("audit", "list", "--kind", "revocation")
    assert (record["fields"]["of"], record["fields"]["name"]) == ("passkey", known["id"])
