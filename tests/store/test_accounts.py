"""Passkeys, invitations, sign-ins: used once, by whom they belong to, for as long as person and passkey are active."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mcp_authz import limits
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.passkey import Invitation, Passkey, SignIn
from mcp_authz.principals import Authentication, PersonName
from mcp_authz.store.ports import Store
from tests.store.conftest import Stores
from tests.store.world import ALICE, BOB, HOUR, MINUTE, START, event, person

TOKEN, COOKIE = b"\x07" * 32, b"\x08" * 32


def invitation(of: PersonName = ALICE, digest: bytes = TOKEN) -> Invitation:
    return Invitation(digest=digest, person=of, made_at=START, expires_at=START + HOUR)


def passkey(of: PersonName = ALICE, credential: bytes = b"credential", sign_count: int = 0) -> Passkey:
    return Passkey(
        credential=credential,
        person=of,
        public_key=b"public",
        sign_count=sign_count,
        label="Firefox on Linux",
        added_at=START,
    )


def sign_in(of: PersonName = ALICE, credential: bytes = b"credential", digest: bytes = COOKIE) -> SignIn:
    return SignIn(
        authentication=Authentication(at=START, amr=("swk", "user")),
        last_used_at=START,
        digest=digest,
        person=of,
        credential=credential,
        began_at=START,
        expires_at=START + limits.SIGN_IN_LIFETIME,
    )


async def settle(store: Store, sign_count: int = 0) -> None:
    """Alice and Bob are registered, and Alice has a passkey."""
    for name in (ALICE, BOB):
        await store.add_person(person(name), event("administration"))
    await store.add_invitation(invitation(), event("enrolment"))
    await store.add_invited(passkey(sign_count=sign_count), TOKEN, event("enrolment"))


async def test_an_invitation_leads_to_one_passkey_and_both_are_on_record(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)

        assert await store.passkeys_of(ALICE) == (passkey(),)
        used = await store.invitation(TOKEN)
        assert used is not None and used.used_at == START
        assert len(await store.records(kind="enrolment")) == 2


async def test_an_invitation_is_used_once(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke_passkeys(ALICE, event("revocation", passkeys_of="user:alice"))

        with pytest.raises(Conflict, match="used already"):
            await store.add_invited(passkey(credential=b"second"), TOKEN, event("enrolment"))
        assert [one.status for one in await store.passkeys_of(ALICE)] == ["revoked"]


async def test_an_invitation_whose_time_is_up_registers_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_person(person(), event("administration"))
        await store.add_invitation(invitation(), event("enrolment"))
        stores.clock.pass_(HOUR)

        with pytest.raises(Conflict, match="time is up"):
            await store.add_invited(passkey(), TOKEN, event("enrolment"))
        assert await store.passkeys_of(ALICE) == ()


async def test_a_newer_invitation_ends_the_older_one(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_person(person(), event("administration"))
        await store.add_invitation(invitation(), event("enrolment"))
        await store.add_invitation(invitation(digest=b"\x09" * 32), event("enrolment"))

        with pytest.raises(Conflict, match="time is up"):
            await store.add_invited(passkey(), TOKEN, event("enrolment"))
        await store.add_invited(passkey(), b"\x09" * 32, event("enrolment"))


async def test_an_invitation_is_for_nobody_else(stores: Stores) -> None:
    async with stores.open() as store:
        for name in (ALICE, BOB):
            await store.add_person(person(name), event("administration"))
        await store.add_invitation(invitation(), event("enrolment"))

        with pytest.raises(Conflict):
            await store.add_invited(passkey(BOB), TOKEN, event("enrolment"))


async def test_whoever_has_a_passkey_is_not_invited(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        with pytest.raises(Conflict, match="sign in with it"):
            await store.add_invitation(invitation(digest=b"\x09" * 32), event("enrolment"))


async def test_nobody_unknown_or_revoked_is_invited(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(NotFound):
            await store.add_invitation(invitation(), event("enrolment"))
        await store.add_person(person(), event("administration"))
        await store.revoke("person", ALICE, event("revocation"))
        with pytest.raises(Conflict, match="revoked"):
            await store.add_invitation(invitation(), event("enrolment"))


async def test_a_credential_is_registered_once(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_invitation(invitation(BOB, b"\x09" * 32), event("enrolment"))

        with pytest.raises(Conflict, match="registered already"):
            await store.add_invited(passkey(BOB), b"\x09" * 32, event("enrolment"))
        unused = await store.invitation(b"\x09" * 32)
        assert unused is not None and unused.used_at is None


async def test_signing_in_uses_the_passkey_and_is_on_record(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store, sign_count=3)
        await store.open_sign_in(sign_in(), 4, event("sign-in"))

        assert await store.sign_in(COOKIE) == sign_in()
        used = await store.passkey(b"credential")
        assert used is not None and (used.sign_count, used.last_used_at) == (4, START)
        assert len(await store.records(kind="sign-in")) == 1


@pytest.mark.parametrize("count", [0, 2, 3])
async def test_a_counter_that_does_not_go_up_is_refused(stores: Stores, count: int) -> None:
    async with stores.open() as store:
        await settle(store, sign_count=3)

        with pytest.raises(Conflict, match="backwards"):
            await store.use_passkey(b"credential", count)
        with pytest.raises(Conflict, match="backwards"):
            await store.open_sign_in(sign_in(), count, event("sign-in"))
        assert await store.sign_in(COOKIE) is None


async def test_an_authenticator_that_does_not_count_is_used_again_and_again(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.use_passkey(b"credential", 0)
        await store.use_passkey(b"credential", 0)


async def test_nobody_signs_in_with_the_passkey_of_another(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        with pytest.raises(Conflict, match="somebody else's"):
            await store.open_sign_in(sign_in(BOB), 0, event("sign-in"))


async def test_a_sign_in_ends_when_its_time_is_up(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))

        for _ in range(11):
            stores.clock.pass_(HOUR)
            await store.use_sign_in(COOKIE)
        stores.clock.pass_(HOUR - MINUTE)
        assert await store.sign_in(COOKIE) is not None
        stores.clock.pass_(MINUTE)
        assert await store.sign_in(COOKIE) is None


async def test_a_sign_in_that_nobody_uses_ends_and_is_not_brought_back(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))

        stores.clock.pass_(limits.SIGN_IN_IDLE - MINUTE)
        assert await store.sign_in(COOKIE) is not None
        stores.clock.pass_(MINUTE)
        await store.use_sign_in(COOKIE)
        assert await store.sign_in(COOKIE) is None


async def test_a_provider_signs_in_whoever_has_no_passkey(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        by_provider = replace(
            sign_in(), credential=None, authentication=Authentication(at=START, amr=("pwd",), issuer="https://op")
        )
        await store.open_sign_in(by_provider, None, event("sign-in"))
        assert await store.sign_in(COOKIE) == by_provider

        await store.revoke_passkeys(ALICE, event("revocation", passkeys_of="user:alice"))
        assert await store.sign_in(COOKIE) is None, "replacing what was lost signs out everywhere"
        with pytest.raises(NotFound):
            await store.open_sign_in(replace(by_provider, person=PersonName("mallory")), None, event("sign-in"))


async def test_signing_out_everywhere_ends_all_sign_ins_of_one_person(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        said = Authentication(at=START, amr=(), issuer="https://op")
        others = replace(sign_in(BOB, digest=b"\x0b" * 32), credential=None, authentication=said)
        for one in (sign_in(), replace(sign_in(digest=b"\x09" * 32), last_used_at=START + MINUTE), others):
            await store.open_sign_in(one, None, event("sign-in"))
        assert [one.digest for one in await store.sign_ins_of(ALICE)] == [b"\x09" * 32, COOKIE]

        before = len(await store.records(kind="sign-in"))
        assert await store.end_sign_ins(ALICE, event("sign-in")) == 2
        assert await store.end_sign_ins(ALICE, event("sign-in")) == 0
        assert len(await store.records(kind="sign-in")) == before + 1, "where nothing ended nothing is recorded"
        assert await store.sign_ins_of(ALICE) == ()
        assert await store.sign_in(others.digest) is not None


async def test_signing_out_ends_a_sign_in_and_is_recorded_once(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))
        await store.end_sign_in(COOKIE, event("sign-in"))
        await store.end_sign_in(COOKIE, event("sign-in"))

        assert await store.sign_in(COOKIE) is None
        assert len(await store.records(kind="sign-in")) == 2


async def test_revoking_a_person_ends_their_passkeys_and_sign_ins_at_the_next_use(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))
        await other.revoke("person", ALICE, event("revocation"))

        assert await store.sign_in(COOKIE) is None
        assert await store.passkey(b"credential") is None
        with pytest.raises(Conflict):
            await store.use_passkey(b"credential", 0)
        with pytest.raises(Conflict):
            await store.open_sign_in(sign_in(digest=b"\x09" * 32), None, event("sign-in"))


async def test_replacing_passkeys_signs_the_person_out_and_stays_known(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))
        stores.clock.pass_(MINUTE)

        named = replace(event("revocation", passkeys_of="user:alice"), at=stores.clock())
        assert await store.revoke_passkeys(ALICE, named) == 1
        assert await store.revoke_passkeys(ALICE, named) == 0

        assert await store.sign_in(COOKIE) is None
        assert await store.passkeys_replaced(ALICE, START) == START + MINUTE
        assert await store.passkeys_replaced(ALICE, START + MINUTE) is None
        assert await store.passkeys_replaced(BOB, START) is None
        assert len(await store.records(kind="revocation")) == 1


async def test_whoever_is_signed_in_adds_a_further_passkey(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))
        await store.add_further(passkey(credential=b"second"), COOKIE, event("enrolment"))
        assert len(await store.passkeys_of(ALICE)) == 2

        with pytest.raises(Conflict, match="not signed in"):
            await store.add_further(passkey(BOB, b"third"), COOKIE, event("enrolment"))
        stores.clock.pass_(timedelta(hours=12))
        with pytest.raises(Conflict, match="not signed in"):
            await store.add_further(passkey(credential=b"third"), COOKIE, event("enrolment"))


async def test_passkeys_are_bounded(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_sign_in(sign_in(), None, event("sign-in"))
        for number in range(limits.PASSKEYS_PER_PERSON - 1):
            await store.add_further(passkey(credential=b"%d" % number), COOKIE, event("enrolment"))
        with pytest.raises(Conflict, match="at most"):
            await store.add_further(passkey(credential=b"one too many"), COOKIE, event("enrolment"))
