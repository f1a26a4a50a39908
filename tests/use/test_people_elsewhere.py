"""Who somebody is here whom a provider vouches for: known by issuer and subject, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.agents import People
from mcp_authz.authorization import Identity
from mcp_authz.config import parse_config
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.people_elsewhere import NotAdmitted, PeopleElsewhere, Provider, Vouched, link
from mcp_authz.principals import Authentication, PersonName

PROVIDER = Provider(issuer="https://login.example.com", client_id="gateway", name="Example Company")
ALICE = Vouched(
    subject="1001",
    name="alice",
    email_verified=False,
    groups=frozenset({"eng"}),
    authentication=Authentication(at=datetime(2026, 1, 1, tzinfo=UTC), amr=(), issuer=PROVIDER.issuer),
)
OPERATOR = "user:operator"


def installation(directory: Path) -> Any:
    return open_installation(parse_config({"data_dir": str(directory / "data"), "servers": {}}))


def known(subject: str, person: str, issuer: str = PROVIDER.issuer) -> Identity:
    return Identity(issuer=issuer, subject=subject, person=PersonName(person), linked_at=utc_now())


def people(here: Installation, **more: Any) -> PeopleElsewhere:
    return PeopleElsewhere(here.store, utc_now, replace(PROVIDER, **more))


async def test_somebody_new_is_registered_once_also_when_they_come_in_twice_at_once(tmp_path: Path) -> None:
    async with installation(tmp_path) as here:
        found = []

        async def one() -> None:
            found.append((await people(here).person(ALICE)).name)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
        assert found == ["alice"] * 8
        assert len(await here.store.records(kind="enrolment")) == 1


async def test_a_subject_is_the_same_person_whatever_they_are_called_by_now(tmp_path: Path) -> None:
    async with installation(tmp_path) as here:
        await people(here).person(ALICE)
        assert (await people(here).person(replace(ALICE, name="alice.married"))).name == "alice"
        assert (await people(here).person(replace(ALICE, name=None))).name == "alice"


async def test_the_same_subject_or_name_at_another_provider_is_somebody_else(tmp_path: Path) -> None:
    async with installation(tmp_path) as here:
        await people(here).person(ALICE)
        other = people(here, issuer="https://evil.example")
        with pytest.raises(NotAdmitted, match=r"user link alice --issuer https://evil\.example --subject 1001"):
            await other.person(ALICE)
        with pytest.raises(NotAdmitted, match="somebody called `alice`"):
            await people(here).person(replace(ALICE, subject="1002", name="ALICE"))
        assert (await other.person(replace(ALICE, name="eve"))).name == "eve"


@pytest.mark.parametrize("told", ["\u212aate", "kate@", "\u212aate@example.com", "kate@\u212bmail.example", "kate\n"])
async def test_a_name_that_only_looks_like_another_is_not_that_one(tmp_path: Path, told: str) -> None:
    # The provider tells them apart: the Kelvin sign is a `k` in lower case, and `kate@` has no domain to be of.
    async with installation(tmp_path) as here:
        for more in ({}, {"email_domain": "example.com"}, {"email_domain": "\u00e5mail.example"}):
            with pytest.raises(NotAdmitted, match="makes no name here"):
                await people(here, **more).person(replace(ALICE, name=told))
        assert await here.store.people() == ()


@pytest.mark.parametrize(
    ("subject", "shown"), [("1\x1b[2J", "'1\\u{001b}[2J'"), ("1; rm -rf ~", "'1; rm -rf ~'"), ("$(id)", "'$(id)'")]
)
async def test_the_command_that_is_shown_can_be_pasted_whatever_the_subject_is(
    tmp_path: Path, subject: str, shown: str
) -> None:
    async with installation(tmp_path) as here:
        await People(here.store, utc_now).add("alice", by=OPERATOR)
        with pytest.raises(NotAdmitted) as refused:
            await people(here).person(replace(ALICE, subject=subject))
        assert str(refused.value).endswith(f"--subject {shown}`")


async def test_an_operator_links_whom_they_know_and_nobody_twice(tmp_path: Path) -> None:
    async with installation(tmp_path) as here:
        for name in ("alice", "bob"):
            await People(here.store, utc_now).add(name, by=OPERATOR)
        await link(here.store, utc_now, known("1001", "alice"), by=OPERATOR)
        assert (await people(here).person(ALICE)).name == "alice"
        with pytest.raises(Conflict, match="somebody here already"):
            await link(here.store, utc_now, known("1001", "bob"), by=OPERATOR)
        with pytest.raises(NotFound):
            await link(here.store, utc_now, known("1002", "mallory"), by=OPERATOR)
        for issuer, subject in (("login.example.com", "1"), (PROVIDER.issuer, ""), (PROVIDER.issuer, "x" * 256)):
            with pytest.raises(InputError):
                await link(here.store, utc_now, known(subject, "bob", issuer), by=OPERATOR)
