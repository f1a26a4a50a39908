"""`mcp-authz user link` and `user sign-out`: who somebody is at their provider, and where they are signed in."""

from __future__ import annotations

from mcp_authz.accounts import Accounts
from mcp_authz.principals import Authentication, PersonName
from tests.cli.desk import Desk

ISSUER = "https://login.example.com"


async def test_whoever_is_linked_is_shown_and_signed_out_of_every_browser(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    assert "name one with --issuer" in desk.refused("user", "link", "alice", "--subject", "1001")
    printed = desk.ok("user", "link", "alice", "--subject", "1001", "--issuer", ISSUER)
    assert printed.startswith(f"alice may sign in as 1001 of {ISSUER}\n") and "user show alice" in printed

    async with desk.open() as here:
        accounts = Accounts(here.store, here.clock)
        for _ in range(2):
            said = Authentication(at=here.clock(), amr=(), issuer=ISSUER)
            await accounts.sign_in_elsewhere(PersonName("alice"), said)
    shown = desk.json("user", "show", "alice")
    assert shown["browsers"] == 2
    assert [(one["issuer"], one["subject"]) for one in shown["identities"]] == [(ISSUER, "1001")]

    assert desk.ok("user", "sign-out", "alice").startswith("alice is signed out of 2 browsers\n")
    assert desk.ok("user", "sign-out", "alice").startswith("alice was signed in nowhere\n")
