"""Row 27: an agent that approves its own call. Only a person whom a rule names answers, about what they saw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mcp_authz.agents import People
from mcp_authz.approvals import Approvals
from mcp_authz.errors import Conflict, NotFound, SignatureRefused
from mcp_authz.installation import Installation
from mcp_authz.model import Assurance, HeldCall, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import PrivateKey, seal_private
from mcp_authz.rules.verdict import make_statement
from tests.cli.desk import OPERATOR, PASSPHRASE, Cast, Desk, held_call, hold, sealed, settle

ALICE, BOB = PersonName("alice"), PersonName("bob")


@dataclass(frozen=True)
class Waiting:
    """A call of coder that waits for bob, and whoever listens to verdicts."""

    here: Installation
    cast: Cast
    held: HeldCall
    approvals: Approvals

    async def approve(self, key: PrivateKey, person: PersonName = BOB, about: HeldCall | None = None) -> HeldCall:
        """An approval of `about` (else of the call that waits), signed by this key, is handed in for `person`."""
        statement = make_statement(
            about or self.held,
            person=person,
            approve=True,
            assurance=Assurance.SIGNED_IN,
            reason="",
            at=self.here.clock(),
            key=key,
        )
        return await self.approvals.hear_signed(self.held.id, person, statement)

    async def state(self) -> HoldState:
        held = await self.here.store.hold(self.held.id)
        assert held is not None
        return held.state


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Waiting]:
    desk = Desk(directory=tmp_path)
    desk.configure('data_dir = "data"\n')
    async with desk.open() as here:
        cast = await settle(here)
        held = await hold(here, held_call(cast))
        approvals = Approvals(store=here.store, clock=here.clock, gateway_key=PrivateKey.generate())
        yield Waiting(here, cast, held, approvals)


async def test_the_key_of_the_person_whom_the_rule_names_approves(waiting: Waiting) -> None:
    assert (await waiting.approve(sealed()[0])).state is HoldState.APPROVED


async def test_an_agents_key_signs_no_verdict(waiting: Waiting) -> None:
    for key in (waiting.cast.coder, waiting.cast.planner, PrivateKey.generate()):
        with pytest.raises(SignatureRefused, match="not signed by a key of the approver"):
            await waiting.approve(key)
    with pytest.raises(NotFound, match="no person"):
        await waiting.approve(waiting.cast.coder, PersonName("coder"))
    assert await waiting.state() is HoldState.PENDING


async def test_a_key_of_an_agent_cannot_become_one_of_a_person(waiting: Waiting) -> None:
    people = People(waiting.here.store, waiting.here.clock)
    with pytest.raises(Conflict):
        await people.add_key("alice", waiting.cast.coder.public, by=OPERATOR)


async def test_a_person_whom_no_rule_names_approves_nothing(waiting: Waiting) -> None:
    key = PrivateKey.generate()
    await People(waiting.here.store, waiting.here.clock).add_key("alice", key.public, by=OPERATOR)
    with pytest.raises(Conflict, match="no rule of it names them"):
        await waiting.approve(key, ALICE)
    with pytest.raises(SignatureRefused):
        await waiting.approve(key, BOB)
    assert await waiting.state() is HoldState.PENDING


async def test_a_verdict_about_something_else_is_not_one_about_this(waiting: Waiting) -> None:
    bob = sealed()[0]
    other = await hold(waiting.here, held_call(waiting.cast))
    about = [
        other,
        replace(waiting.held, digest=other.digest),
        replace(waiting.held, id=other.id),
        replace(waiting.held, purpose="another purpose was displayed"),
        replace(waiting.held, arguments={"repo": "api", "note": "other arguments were displayed"}),
    ]
    for something_else in about:
        with pytest.raises(SignatureRefused, match="about something else"):
            await waiting.approve(bob, about=something_else)
    assert await waiting.state() is HoldState.PENDING


async def test_a_verdict_changed_on_its_way_is_refused(waiting: Waiting) -> None:
    statement = make_statement(
        waiting.held,
        person=BOB,
        approve=False,
        assurance=Assurance.SIGNED_IN,
        reason="",
        at=waiting.here.clock(),
        key=sealed()[0],
    )
    head, body, signature = statement.split(".")
    approving = make_statement(
        waiting.held,
        person=BOB,
        approve=True,
        assurance=Assurance.SIGNED_IN,
        reason="",
        at=waiting.here.clock(),
        key=waiting.cast.coder,
    ).split(".")[1]
    for forged in (f"{head}.{approving}.{signature}", f"{head}.{body}.", f"{head}.{body}"):
        with pytest.raises(SignatureRefused):
            await waiting.approvals.hear_signed(waiting.held.id, BOB, forged)
    assert await waiting.state() is HoldState.PENDING


async def test_at_the_command_line_an_agents_key_approves_nothing_whoever_it_says_it_is(tmp_path: Path) -> None:
    desk = Desk(directory=tmp_path)
    desk.configure('data_dir = "data"\n')
    async with desk.open() as here:
        cast = await settle(here)
        held = await hold(here, held_call(cast))
    desk.path("coder.key").write_text(seal_private(cast.coder, PASSPHRASE))
    approve = ("holds", "approve", held.id, "--key", "coder.key", "--as")
    for person, why in (("bob", "not signed by a key of the approver"), ("coder", "there is no person `coder`")):
        done = desk.seated(*approve, person, types=[("passphrase", PASSPHRASE)])
        assert done.code == 1 and why in done.sentence
    assert desk.json("holds", "show", held.id)["state"] == "pending"


async def test_no_program_can_type_the_passphrase_for_a_person(tmp_path: Path) -> None:
    desk = Desk(directory=tmp_path, env={"PASSPHRASE": PASSPHRASE, "SSH_ASKPASS": "/bin/true"})
    desk.configure('data_dir = "data"\n')
    async with desk.open() as here:
        held = await hold(here, held_call(await settle(here)))
    desk.path("bob.key").write_text(sealed()[1])
    approve = ("holds", "approve", held.id, "--key", "bob.key", "--as", "bob")
    done = desk.run(*approve, stdin=f"{PASSPHRASE}\n" * 3)
    assert done.code == 1 and "at a terminal only" in done.sentence
    assert desk.run(*approve, "--passphrase", PASSPHRASE).code == 2
    assert desk.json("holds", "show", held.id)["state"] == "pending"
