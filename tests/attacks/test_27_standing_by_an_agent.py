"""Row 27: an agent wants standing approval of its own calls, or somebody gives one who may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import AuthzError, Conflict, InputError, SignatureRefused
from mcp_authz.model import Assurance, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.standing_approval import make_statement, read_freed
from mcp_authz.rules.verdict import PasskeyProof, SignInProof
from mcp_authz.standing_approvals import Wish
from tests.attacks.attacker import answer_in, spy, tool
from tests.standing import ANY, give
from tests.world import ENVELOPE, OPERATOR, World, world

ALICE = PersonName("alice")


class Calls:
    """The calls of one agent."""

    def __init__(self, w: World, token: str) -> None:
        self._w, self._token = w, token

    async def __call__(self, n: str, **more: Any) -> str:
        """How the call ends."""
        return str((await self.envelope(n, **more)).get("outcome", "done"))

    async def envelope(self, n: str, **more: Any) -> Any:
        result = answer_in(await self._w.raw_call(self._token, "spy__drop", {"n": n, **more}))["result"]
        return (result.get("_meta") or {}).get(ENVELOPE, {})


def dropping(directory: Path) -> Any:
    server = spy(directory / "spy", tool("drop"))
    return server, {"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}


async def test_only_a_person_whom_the_rules_name_gives_one_with_their_own_proof(tmp_path: Path) -> None:
    server, servers = dropping(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "spy:drop", interactive=True)
        await w.person("eve")
        call = Calls(w, await w.token(coder))
        standing = w.running.standing_approvals
        hold = (await call.envelope("1"))["hold"]
        held = await w.store.hold(hold)
        wish = Wish(calls=3, freed={"n": read_freed(ANY)})
        terms = await standing.draft(hold, ALICE, wish, reason="")

        def signed(key: PrivateKey, **more: Any) -> str:
            return make_statement(replace(terms, **more), held, assurance=Assurance.SIGNED_IN, at=w.clock(), key=key)

        alice = w.approvers["alice"]
        for statement in (
            signed(coder.key),
            signed(w.approvers["eve"]),
            signed(alice, most=100),
            signed(alice, expires_at=terms.expires_at + timedelta(hours=1)),
        ):
            with pytest.raises(SignatureRefused):
                await standing.give_signed(terms, statement)
        with pytest.raises(Conflict, match="no rule of it names them"):
            await give(w, hold, by="eve", n=ANY)
        # What was drafted for one call is not given with another, and no sign-in of long ago gives any.
        other = await standing.draft((await call.envelope("2", more="x"))["hold"], ALICE, wish, reason="")
        forged = replace(terms, pattern=other.pattern)
        with pytest.raises(SignatureRefused):
            await standing.give_signed(forged, signed(alice, pattern=other.pattern))
        old = SignInProof(issuer="https://id.example", amr=(), at=w.clock() - limits.APPROVAL_SIGN_IN * 2)
        with pytest.raises(Conflict, match="sign in again"):
            await standing.give_page(terms, old)
        passkey = PasskeyProof(
            credential=b"c",
            authenticator_data=b"a",
            client_data=b'{"challenge":"AAAA"}',
            signature=b"s",
            nonce=b"n" * 32,
        )
        with pytest.raises(SignatureRefused, match="something else"):
            await standing.give_page(terms, passkey)
        # The requesting client's own yes approves one call, whatever it says beside it.
        await w.running.approvals.hear_client(hold, approve=True)
        assert await call("1") == "done" and await call("3") == "held"
        assert await w.store.standing_approvals() == ()
        assert len(server.ran) == 1


async def test_nobody_gives_one_for_more_than_the_bounds_or_for_a_request_for_a_session(tmp_path: Path) -> None:
    _, servers = dropping(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "spy:drop")
        token = await w.token(coder)
        hold = (await Calls(w, token).envelope("1"))["hold"]
        standing, now = w.running.standing_approvals, w.clock()
        for wish in (
            Wish(calls=0),
            Wish(calls=limits.STANDING_CALLS + 1),
            Wish(calls=1, until=now),
            Wish(calls=1, until=now + limits.STANDING_LONGEST * 2),
        ):
            with pytest.raises(InputError):
                await standing.draft(hold, ALICE, wish, reason="")
        longest = await standing.draft(hold, ALICE, Wish(calls=1, until=now + limits.STANDING_LONGEST), reason="")
        (session,) = await w.store.sessions()
        assert longest.expires_at <= session.expires_at  # never beyond it
        asks = {"purpose": "more", "tools": ["spy__drop"], "minutes": 5}
        request = answer_in(await w.raw_call(token, "authz__request_session", asks))["result"]["_meta"][ENVELOPE]
        with pytest.raises(Conflict, match="by itself"):
            await standing.draft(request["hold"], ALICE, Wish(calls=1), reason="")


async def test_it_takes_as_many_people_reasons_and_names_of_rules_as_each_call_does(tmp_path: Path) -> None:
    server, servers = dropping(tmp_path)
    rules = {"destructive": {"by": ["group:ops"], "quorum": 2, "reason": True, "assurance": "signed-in"}}
    async with world(tmp_path, servers=servers, approval={**rules, "session": {}}) as w:
        for name in ("alice", "bob", "carol"):
            await w.person(name, "ops")
        call = Calls(w, await w.token(await w.ready("coder", "spy:drop")))
        hold = (await call.envelope("1"))["hold"]
        with pytest.raises(Conflict, match="needs a reason"):
            await give(w, hold, by="alice", n=ANY)
        await give(w, hold, by="alice", reason="a release", n=ANY)
        waits = (await call.envelope("2"))["hold"]  # one of two is not enough
        bobs = await give(w, hold, by="bob", reason="the same", n=ANY)
        assert await call("1") == "done"
        assert await call("2") == "done"  # the call that waited for a second person has two now
        held = await w.store.hold(waits)
        assert held.state is HoldState.DONE and {v.person for v in held.verdicts} == {"alice", "bob"}
        assert {v.reason for v in held.verdicts} == {"a release", "the same"}

        # One of them is ended: what it approved and what has not run goes with it, and the other is not enough.
        revocation = Revocation(w.store, w.clock)
        assert await revocation.foresee("approval", bobs) == await revocation.revoke(
            "approval", bobs, reason="enough", by=OPERATOR
        )
        assert (await revocation.foresee("approval", bobs)).already
        hold = (await call.envelope("3"))["hold"]
        await give(w, hold, by="carol", reason="instead of bob", n=ANY)
        assert await call("3") == "done" and await call("4") == "done"  # alice's stands for this call too
        with pytest.raises(AuthzError):
            await revocation.revoke("approval", "a_none", reason="x", by=OPERATOR)
        assert len(server.ran) == 4
