"""Passkeys: what counts as one, once, here, with its user verified, and for exactly what was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.agents import People
from mcp_authz.errors import Conflict, SignatureRefused
from mcp_authz.hearing import PageAnswer
from mcp_authz.model import Assurance, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, unb64url
from mcp_authz.rules.verdict import TYP, PasskeyProof, approval_challenge
from tests.web.authenticator import PRESENT, VERIFIED, Visit, client_data, visit, visiting
from tests.world import OPERATOR, World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


async def settle(w: World, *names: str) -> None:
    for name in names or ("alice",):
        await People(w.store, w.clock).add(name, by=OPERATOR)


async def held_call(w: World, scope: str = "deploy:production", **changes: str) -> Any:
    """A call of alice's agent that waits."""
    coder = await w.ready("coder", scope)
    return await w.call(coder, "acme__deploy", **{**DEPLOY, **changes})


def unverified(visit: Visit) -> None:
    visit.passkey.flags = PRESENT


def elsewhere(visit: Visit) -> None:
    visit.passkey.rp_id = "evil.example"


def absent(visit: Visit) -> None:
    visit.passkey.flags = VERIFIED


@pytest.mark.parametrize("spoil", [unverified, elsewhere, absent], ids=lambda spoil: spoil.__name__)
async def test_a_passkey_that_does_not_verify_its_user_here_is_not_taken(
    tmp_path: Path, spoil: Callable[[Visit], None]
) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w, "alice", "bob")
        async with visit(w) as bob:
            spoil(bob)
            assert (await bob.register(await bob.invite("bob"))).status_code == 403
        async with visiting(w, "alice") as alice:
            alice.http.cookies.clear()
            spoil(alice)
            assert (await alice.sign_in()).status_code == 403
            assert (await alice.get("/holds")).status_code == 401


@pytest.mark.parametrize(
    "client",
    [
        {"origin": "http://localhost:1"},
        {"origin": "https://evil.example"},
        {"crossOrigin": True},
        {"type": "webauthn.x"},
    ],
    ids=str,
)
async def test_a_passkey_that_was_asked_by_another_page_is_not_taken(tmp_path: Path, client: dict[str, Any]) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w, "alice", "bob")
        async with visit(w) as bob:
            assert (await bob.register(await bob.invite("bob"), **client)).status_code == 403
        async with visiting(w, "alice") as alice:
            assert (await alice.sign_in(**client)).status_code == 403


async def test_a_question_is_answered_once_and_within_five_minutes(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            nonce, options = await alice.question("/sign-in")
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            assert (await alice.post("/sign-in", body)).status_code == 200
            assert (await alice.post("/sign-in", body)).status_code == 409

            nonce, options = await alice.question("/sign-in")
            w.clock.advance(timedelta(minutes=5))
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            assert (await alice.post("/sign-in", body)).status_code == 409


async def test_questions_that_strangers_ask_for_leave_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHALLENGES", 4)
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice, visit(w) as mallory:
            nonce, options = await alice.question("/sign-in")
            for _ in range(8):
                await mallory.question("/sign-in")
            body = {"nonce": nonce, "answer": alice.passkey.show(options, alice.origin)}
            for made_up in (nonce[:-3] + "AAA", b64url(bytes(32)), b64url(b"short"), ""):
                assert (await mallory.post("/sign-in", {**body, "nonce": made_up})).status_code in {400, 403, 409}
            assert (await alice.post("/sign-in", body)).status_code == 200
            assert (await mallory.post("/sign-in", body)).status_code == 409, "once"


async def test_an_authenticator_whose_counter_goes_backwards_is_not_taken(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visit(w) as alice:
            alice.passkey.count = 7
            assert (await alice.register(await alice.invite("alice"))).status_code == 200
            alice.passkey.count = 8
            assert (await alice.sign_in()).status_code == 200
            for copy in (8, 3, 0):
                alice.passkey.count = copy
                assert (await alice.sign_in()).status_code == 403


async def test_a_passkey_that_nobody_registered_signs_nobody_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w, visit(w) as stranger:
        answer = await stranger.sign_in()
        assert answer.status_code == 404 and "not known here any more" in answer.json()["error"]


async def test_the_user_handle_says_nothing_and_is_the_same_each_time(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w, "alice", "bob")
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob:
            handles = {unb64url((await them.further())[1]["user"]["id"]) for them in (alice, alice, bob)}
            assert handles == {alice.passkey.handle, bob.passkey.handle}
            assert all(len(handle) == 32 and b"alice" not in handle for handle in handles)
            bob.passkey.handle = alice.passkey.handle
            assert (await bob.sign_in()).status_code == 403


async def test_the_options_ask_for_a_discoverable_passkey_with_its_user_verified_and_no_attestation(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            _, options = await alice.further()
            assert options["rp"]["id"] == "localhost" and options["attestation"] == "none"
            assert options["authenticatorSelection"]["residentKey"] == "required"
            assert options["authenticatorSelection"]["userVerification"] == "required"
            assert [one["id"] for one in options["excludeCredentials"]] == [b64url(alice.passkey.id)]
            _, options = await alice.question("/sign-in")
            assert options["userVerification"] == "required" and not options["allowCredentials"]


async def test_a_further_passkey_is_made_by_whoever_is_signed_in_and_then_signs_in(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice, visit(w) as elsewhere_:
            nonce, options = await alice.further()
            made = elsewhere_.passkey.make(options, alice.origin)
            assert (await alice.post("/passkeys", {"nonce": nonce, "answer": made})).status_code == 200
            assert (await alice.post("/passkeys", {"nonce": nonce, "answer": made})).status_code == 409
            assert (await elsewhere_.sign_in()).status_code == 200


async def test_a_cookie_alone_does_not_become_a_passkey(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w, "alice", "bob")
        async with visiting(w, "alice") as alice, visiting(w, "bob") as bob, visit(w) as thief:
            thief.http.cookies = alice.http.cookies
            proof = (await thief.post("/passkeys/proof", {})).json()
            for passkey in (thief.passkey, bob.passkey):
                shown = {"nonce": proof["nonce"], "answer": passkey.show(proof["options"], thief.origin)}
                assert (await thief.post("/passkeys/question", shown)).status_code in {403, 404, 409}
                proof = (await thief.post("/passkeys/proof", {})).json()
            assert (await thief.post("/passkeys/question", {})).status_code == 400
            nonce, options = await thief.question("/sign-in")
            again = {"nonce": nonce, "answer": alice.passkey.show(options, thief.origin)}
            assert (await thief.post("/passkeys/question", again)).status_code == 409  # shown, but for something else
            assert len(await Accounts(w.store, w.clock).passkeys_of(PersonName("alice"))) == 1


async def test_answers_that_are_no_answers_are_refused_in_a_sentence(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visiting(w, "alice") as alice:
            good = alice.passkey.show((await alice.question("/sign-in"))[1], alice.origin)
            for broken in spoilt(good):
                nonce, _ = await alice.question("/sign-in")
                answer = await alice.post("/sign-in", {"nonce": nonce, "answer": broken})
                assert answer.status_code in {400, 403, 404}, (answer.status_code, broken)
                assert answer.json()["error"].endswith(".")


async def test_registrations_that_are_none_are_refused_in_a_sentence(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await settle(w)
        async with visit(w) as alice:
            path = await alice.invite("alice")
            good = alice.passkey.make((await alice.question(path))[1], alice.origin)
            for broken in spoilt(good):
                nonce, _ = await alice.question(path)
                answer = await alice.post(f"{path}/passkey", {"nonce": nonce, "answer": broken})
                assert answer.status_code in {400, 403}, (answer.status_code, broken)
            assert (await alice.register(path)).status_code == 200, "nothing of it used the link up"


def spoilt(good: dict[str, Any]) -> list[Any]:
    """The answer with each of its parts missing, of another type, cut, longer, or nonsense."""
    answers: list[Any] = [[], {}, {"id": "x"}, {**good, "type": "x"}, {**good, "response": []}, {**good, "id": "AAAA"}]
    for name in ("id", "rawId", "response", "type"):
        answers.append({key: value for key, value in good.items() if key != name})
    for name, value in good["response"].items():
        if name == "userHandle":
            continue
        for other in (None, 1, "", "%", "AAAA", value[:-8], value + "AAAA", b64url(b"\xff" * 200), b64url(b"{}")):
            answers.append({**good, "response": {**good["response"], name: other}})
    return answers


async def test_approving_takes_the_passkey_afresh_and_is_recorded_as_such(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        call = await held_call(w)
        async with visiting(w, "alice") as alice:
            assert (await alice.approve(call.hold, "looks right")).json()["state"] == "approved"
        held = await w.store.hold(call.hold)
        (verdict,) = held.verdicts
        assert (verdict.assurance, verdict.person, verdict.reason) == (Assurance.PASSKEY, "alice", "looks right")


async def test_a_cookie_alone_approves_nothing_and_denies(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        call = await held_call(w)
        async with visiting(w, "alice") as alice:
            thief = Visit(w, alice.http)  # the cookie, and an authenticator of their own
            assert (await thief.approve(call.hold)).status_code == 409
            assert (await thief.post(f"/holds/{call.hold}/approve", {"nonce": "AAAA", "answer": {}})).status_code == 409
            assert (await w.store.hold(call.hold)).state is HoldState.PENDING

            assert (await thief.post(f"/holds/{call.hold}/deny", {"reason": "not now"})).json()["state"] == "denied"
        (verdict,) = (await w.store.hold(call.hold)).verdicts
        assert (verdict.assurance, verdict.approve) == (Assurance.SIGNED_IN, False)


async def test_an_answer_for_one_call_is_good_for_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy:production")
        one = await w.call(coder, "acme__deploy", **DEPLOY)
        other = await w.call(coder, "acme__deploy", **{**DEPLOY, "version": "6.6.6"})
        async with visiting(w, "alice") as alice:
            nonce, options = await alice.question(f"/holds/{one.hold}")
            shown = alice.passkey.show(options, alice.origin)
            answer = await alice.post(f"/holds/{other.hold}/approve", {"nonce": nonce, "answer": shown})
            assert answer.status_code == 409

            fresh, _ = await alice.question(f"/holds/{other.hold}")
            answer = await alice.post(f"/holds/{other.hold}/approve", {"nonce": fresh, "answer": shown})
            assert answer.status_code == 403
        for call in (one, other):
            assert (await w.store.hold(call.hold)).state is HoldState.PENDING


async def test_a_sign_in_is_no_approval(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        call = await held_call(w)
        async with visiting(w, "alice") as alice:
            signed, options = await alice.question("/sign-in")
            shown = alice.passkey.show(options, alice.origin)
            nonce, _ = await alice.question(f"/holds/{call.hold}")
            for used in (nonce, signed):
                answer = await alice.post(f"/holds/{call.hold}/approve", {"nonce": used, "answer": shown})
                assert answer.status_code in {403, 409}
        assert (await w.store.hold(call.hold)).state is HoldState.PENDING


async def test_an_approval_can_be_verified_later_from_its_statement_and_the_passkeys_public_key(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        call = await held_call(w)
        async with visiting(w, "alice") as alice:
            await alice.approve(call.hold, "release day")
            key = alice.passkey.key.public_key()
            url = alice.origin
        held = await w.store.hold(call.hold)
        (verdict,) = held.verdicts

        seed = await w.store.secret("verdict-key", lambda: b"")
        gateway = PrivateKey.from_seed(seed).public
        claims = jose.read(verdict.statement).verify(PublicKey.from_raw(gateway.raw), typ=TYP)
        proof = claims["proof"]
        data, told = unb64url(proof["authenticator_data"]), unb64url(proof["client_data"])
        key.verify(unb64url(proof["signature"]), data + hashlib.sha256(told).digest(), ec.ECDSA(hashes.SHA256()))
        challenge = approval_challenge(
            held, person=PersonName("alice"), reason=claims["reason"], terms={}, nonce=unb64url(proof["nonce"])
        )
        assert json.loads(told) == {
            "type": "webauthn.get", "challenge": b64url(challenge), "origin": url, "crossOrigin": False,
        }  # fmt: skip
        assert data[:32] == hashlib.sha256(b"localhost").digest() and data[32] == PRESENT | VERIFIED


async def test_a_reason_is_asked_for_where_a_rule_does_before_a_passkey_is_shown(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"reason": True}}) as w:
        call = await held_call(w)
        async with visiting(w, "alice") as alice:
            answer = await alice.post(f"/holds/{call.hold}/question", {"reason": "  "})
            assert answer.status_code == 409 and "wants to know why" in answer.json()["error"]
            answer = await alice.post(f"/holds/{call.hold}/question", {"reason": "x" * 1025})
            assert answer.status_code == 400
            assert (await alice.approve(call.hold, "because")).json()["state"] == "approved"


async def test_two_people_meet_a_quorum_and_nobody_answers_twice(tmp_path: Path) -> None:
    rule = {"by": ["group:ops"], "quorum": 2, "assurance": "passkey"}
    async with world(tmp_path, approval={"destructive": rule}) as w:
        for name in ("bob", "carol"):
            await w.person(name, "ops")
        call = await held_call(w)
        async with visiting(w, "bob") as bob, visiting(w, "carol") as carol:
            assert (await bob.approve(call.hold)).json()["state"] == "pending"
            page = (await bob.get(f"/holds/{call.hold}")).text
            assert "1 of 2" in page and "You have answered" in page and "data-approve" not in page
            assert (await bob.approve(call.hold)).status_code == 409
            assert (await carol.approve(call.hold)).json()["state"] == "approved"


async def test_a_narrowed_call_that_is_no_request_for_a_session_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        call = await held_call(w)
        async with visiting(w, "alice") as alice:
            body = {"reason": "", "terms": {"minutes": 5}}
            answer = await alice.post(f"/holds/{call.hold}/question", body)
            assert answer.status_code == 400 and "only a request for a session" in answer.json()["error"].lower()


async def test_what_hears_verdicts_takes_no_approval_of_the_page_without_a_proof_of_exactly_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        call = await held_call(w)
        held = await w.store.hold(call.hold)
        alice, nonce = PersonName("alice"), bytes(32)
        challenge = approval_challenge(held, person=alice, reason="agreed", terms={}, nonce=nonce)
        told = client_data("webauthn.get", b64url(challenge), w.config.public_url)
        proof = PasskeyProof(credential=b"c", authenticator_data=b"a", client_data=told, signature=b"s", nonce=nonce)
        good = PageAnswer(person=alice, approve=True, reason="agreed", terms={}, proof=proof)

        for spoilt_answer, error in (
            (replace(good, proof=None), Conflict),
            (replace(good, reason="not what was signed"), SignatureRefused),
            (replace(good, proof=replace(proof, nonce=b"\x01" * 32)), SignatureRefused),
            (replace(good, proof=replace(proof, client_data=b"{}")), SignatureRefused),
            (replace(good, proof=replace(proof, client_data=b"")), SignatureRefused),
        ):
            with pytest.raises(error):
                await w.running.approvals.hear_page(call.hold, spoilt_answer)
        assert (await w.running.approvals.hear_page(call.hold, good)).state is HoldState.APPROVED
