"""People as OpenID providers know them: each subject is one person, and a name alone makes nobody anybody."""

from __future__ import annotations

import pytest

from mcp_authz.authorization import Identity
from mcp_authz.errors import Conflict
from mcp_authz.principals import PersonName
from tests.store.conftest import Stores
from tests.store.world import ALICE, BOB, START, event, person

ISSUER = "https://login.example.com"


def identity(subject: str = "1001", of: PersonName = ALICE, issuer: str = ISSUER) -> Identity:
    return Identity(issuer=issuer, subject=subject, person=of, linked_at=START)


async def test_a_newcomer_and_who_knows_them_come_to_be_together(stores: Stores) -> None:
    async with stores.open() as store:
        await store.link_identity(identity(), person(), event("enrolment"))
        assert await store.identity(ISSUER, "1001") == identity()
        assert await store.person(ALICE) == person()
        assert await store.identity("https://evil.example", "1001") is None

        with pytest.raises(Conflict, match="already"):
            await store.link_identity(identity("1002"), person(), event("enrolment"))
        with pytest.raises(Conflict, match="somebody here already"):
            await store.link_identity(identity(of=BOB), person(BOB), event("enrolment"))
        assert await store.person(BOB) is None and await store.identity(ISSUER, "1002") is None
        assert len(await store.records(kind="enrolment")) == 1


async def test_only_somebody_active_is_linked_to_a_subject(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(Conflict, match="no active person"):
            await store.link_identity(identity(), None, event("enrolment"))
        await store.add_person(person(), event("administration"))
        for subject in ("1001", "1002"):
            await store.link_identity(identity(subject), None, event("enrolment"))
        assert [one.subject for one in await store.identities_of(ALICE)] == ["1001", "1002"]
        await store.revoke("person", ALICE, event("revocation"))
        with pytest.raises(Conflict, match="no active person"):
            await store.link_identity(identity("1003"), None, event("enrolment"))


async def test_groups_are_set_and_recorded_where_they_change(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_person(person(), event("administration"))
        for groups in ({"approvers"}, {"approvers"}, set()):
            await store.set_groups(ALICE, frozenset(groups), event("administration"))
            found = await store.person(ALICE)
            assert found is not None and found.groups == groups
        assert len(await store.records(kind="administration")) == 3
