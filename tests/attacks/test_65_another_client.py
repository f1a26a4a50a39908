"""Row 65: an approver's own client asserts no more than that it answered, and for nobody but who signed in to it."""

from __future__ import annotations

from pathlib import Path

from mcp_authz.model import Assurance
from mcp_authz.rules import jose
from mcp_authz.rules.keys import b64url
from tests.approving import FORM, SCOPE, get, retry, text, verdicts, waits
from tests.world import world

SAYS_MORE = {
    "answer": "approve",
    "reason": "sure",
    "assurance": "passkey",
    "person": "user:bob",
    "by": "bob",
    "proof": {"type": "webauthn"},
    "terms": {"minutes": 999},
}


async def test_whatever_it_says_beside_its_answer_counts_for_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _, hold = await waits(w)
        await w.person("bob")
        desk = await w.client_agent("desk", "alice", scope=SCOPE)
        asked = await get(w, desk, hold, capabilities=FORM)
        more = retry(asked, SAYS_MORE)
        more["inputResponses"]["approval"] |= {"assurance": "passkey", "person": "bob"}
        assert "is approved" in text(await get(w, desk, hold, capabilities=FORM, **more))
        held = await w.store.hold(hold)
        (record,) = await verdicts(w)
    (verdict,) = held.verdicts
    claims = jose.read(verdict.statement).claims
    assert (verdict.person, verdict.assurance, verdict.terms) == ("alice", Assurance.CLIENT_OTHER, {})
    assert (claims["sub"], claims["assurance"], claims["proof"]["type"]) == ("user:alice", "client-other", "client")
    assert claims["act_s256"] == b64url(held.digest) and "terms" not in record


async def test_a_client_of_one_person_answers_for_no_other(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"destructive": {"by": ["user:bob"]}}) as w:
        _, hold = await waits(w)
        await w.person("bob")
        desk = await w.client_agent("desk", "alice", scope=SCOPE)
        asked = await get(w, await w.client_agent("desk", "bob", scope=SCOPE), hold, capabilities=FORM)
        assert "No held call that waits for your answer" in text(await get(w, desk, hold, capabilities=FORM))
        refused = await get(w, desk, hold, capabilities=FORM, **retry(asked, SAYS_MORE))
        assert "requestState is not valid" in text(refused)
        assert await verdicts(w) == []
