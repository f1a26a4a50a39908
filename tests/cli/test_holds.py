"""Held calls at the command line: shown in full, answered only by a person who types a passphrase at a terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.model import ApprovalRule, Assurance, HoldId, HoldState
from mcp_authz.rules.display import displayed
from tests.cli.desk import BOB_APPROVES, CTRL_C, PASSPHRASE, Cast, Desk, held_call, hold, sealed, settle

ASKED = [("passphrase", PASSPHRASE)]


@pytest.fixture
async def cast(desk: Desk) -> Cast:
    async with desk.open() as here:
        return await settle(here)


@pytest.fixture
def key(desk: Desk) -> Path:
    desk.path("bob.key").write_text(sealed()[1])
    return desk.path("bob.key")


async def test_a_person_approves_what_stands_before_them(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key, types=ASKED)
    assert done.code == 0 and not done.err, done
    assert done.out.startswith(displayed(held) + "\n")
    assert f"{held.id} is approved by bob" in done.out
    async with desk.open() as here:
        after = await here.store.hold(held.id)
        assert after is not None and after.state is HoldState.APPROVED
        assert [v.signed_by for v in after.verdicts] == [sealed()[0].public.thumbprint]


async def test_the_call_stands_on_the_terminal_wherever_stdout_leads(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    done = desk.seated("holds", "deny", held.id, "--as", "bob", "--key", key, "--reason", "no", types=ASKED)
    assert displayed(held).splitlines() == done.terminal.splitlines()[: len(displayed(held).splitlines())]
    assert PASSPHRASE not in done.terminal + done.out
    assert f"{held.id} is denied by bob" in done.out
    shown = desk.ok("holds", "show", held.id)
    assert "bob denied" in shown and "(signed-in): no" in shown


async def test_no_passphrase_is_asked_for_where_a_key_is_too_little_for_a_rule_of_theirs(
    desk: Desk, cast: Cast, key: Path
) -> None:
    strong = ApprovalRule(name="strong", by=("group:release",), assurance=Assurance.PASSKEY)
    async with desk.open() as here:
        held = await hold(here, held_call(cast, rules=(BOB_APPROVES, strong)))
    for more in ((), ("--standing", "2")):
        done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key, *more)
        assert done.code == 1 and "takes a passkey: approve it on its page" in done.sentence, done
    assert desk.seated("holds", "deny", held.id, "--as", "bob", "--key", key, types=ASKED).code == 0


async def test_another_passphrase_leaves_the_hold_as_it_is(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key, types=[("passphrase", "wrong")])
    assert done.code == 1 and "passphrase is wrong" in done.sentence
    assert desk.json("holds", "show", held.id)["state"] == "pending"


async def test_without_a_terminal_nobody_approves(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    done = desk.run("holds", "approve", held.id, "--as", "bob", "--key", key, stdin=f"{PASSPHRASE}\n")
    assert done.code == 1 and "at a terminal only" in done.sentence
    assert desk.json("holds", "list")[0]["state"] == "pending"


async def test_a_key_that_no_passphrase_protects_is_refused(desk: Desk, cast: Cast) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    plain = desk.path("plain.pem")
    plain.write_text(sealed()[0].to_pem())
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", plain)
    assert done.code == 1 and "not protected by a passphrase" in done.sentence
    assert "mcp-authz user key" in done.sentence


async def test_an_expired_hold_is_not_answered(desk: Desk, cast: Cast, key: Path) -> None:
    call = held_call(cast)
    async with desk.open() as here:
        minute = timedelta(minutes=1)
        held = await hold(here, replace(call, asked_at=call.asked_at - minute, expires_at=call.asked_at))
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key)
    assert done.code == 1 and "is expired" in done.sentence


async def test_a_rule_that_wants_a_reason_says_so_before_anything_is_typed(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast, rules=(replace(BOB_APPROVES, reason=True),)))
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key)
    assert done.code == 1 and "--reason" in done.sentence


async def test_an_approval_that_is_not_enough_says_so(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(
            here, held_call(cast, rules=(replace(BOB_APPROVES, by=("user:bob", "user:alice"), quorum=2),))
        )
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key, types=ASKED)
    assert done.code == 0 and "not enough yet" in done.out
    assert desk.json("holds", "show", held.id)["state"] == "pending"


async def test_a_hold_is_named_by_enough_of_its_id(desk: Desk, cast: Cast) -> None:
    async with desk.open() as here:
        first = await hold(here, held_call(cast))
        second = await hold(here, held_call(cast))
    assert desk.json("holds", "show", first.id[:20])["id"] == first.id
    assert first.id in desk.ok("holds", "list") and second.id in desk.ok("holds", "list")
    async with desk.open() as here:
        for id_ in ("h_same1", "h_same2"):
            await hold(here, held_call(cast, id=HoldId(id_)))
    several = desk.refused("holds", "show", "h_same")
    assert "several holds begin with `h_same`: h_same1, h_same2" in several
    assert "there is no hold `h_`" in desk.refused("holds", "show", "h_")


async def test_the_next_command_names_a_key_only_where_one_of_somebody_would_count(desk: Desk, cast: Cast) -> None:
    by_passkey = replace(BOB_APPROVES, assurance=Assurance.PASSKEY)
    async with desk.open() as here:
        by_key = await hold(here, held_call(cast))
        on_its_page = await hold(here, held_call(cast, rules=(by_passkey,)))
        (bobs,) = await here.store.keys_of("user:bob")
    for held, words in ((by_key, " --as PERSON --key FILE"), (on_its_page, "")):
        *_, page, command = desk.ok("holds", "show", held.id).splitlines()
        assert page == f"page: http://localhost:8642/holds/{held.id}"
        assert command.endswith(f"holds approve {held.id}{words}")
    desk.ok("revoke", "key", bobs.thumbprint, "--reason", "lost")
    assert desk.ok("holds", "show", by_key.id).splitlines()[-1].endswith(f"holds approve {by_key.id}")


async def test_ctrl_c_at_the_passphrase_ends_the_command(desk: Desk, cast: Cast, key: Path) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    done = desk.seated("holds", "approve", held.id, "--as", "bob", "--key", key, types=[("passphrase", f"abc{CTRL_C}")])
    assert done.code != 0 and "Traceback" not in done.err
    assert desk.json("holds", "show", held.id)["state"] == "pending"
