"""A bundle has what its calls stand on, and nothing else that the same people and sessions have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_authz.audit_bundles import bundle_of
from mcp_authz.audit_excerpts import records_of
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import PublicKey, b64url
from mcp_authz.shredding import of_calls, shred_now
from mcp_authz.store.evidence_port import Shredded
from mcp_authz.store.ports import Event
from tests.web.authenticator import Authenticator, visiting
from tests.world import OPERATOR, World, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1"}


async def of(w: World, hold: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The fields of the records of the call's bundle, and its evidence."""
    records, url = await records_of(w.store, hold), w.config.public_url
    made = await bundle_of(w.store, w.clock, records, gateway=url, with_arguments=True)
    return [json.loads(text) for text in made["uncovered"]], made["evidence"]


def keys_in(evidence: dict[str, Any]) -> set[str]:
    return {PublicKey.from_jwk(key).thumbprint for key in evidence["keys"]}


async def test_a_bundle_names_no_other_passkey_no_other_delegation_and_no_key_of_what_was_shredded(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, audit={"evidence_days": 90}) as w:
        planner = await w.ready("planner", "pr deploy", depth=1, delegates_to={"helper", "other"})
        helper, other = await w.agent("helper", ceiling="deploy"), await w.agent("other", ceiling="pr")
        await w.delegate(planner, "other", "pr:read")
        await w.delegate(planner, "helper", "deploy")
        hold = (await w.call(helper, "acme__deploy", **DEPLOY)).hold
        async with visiting(w, "alice") as alice:
            nonce, options = await alice.further()
            made = Authenticator().make(options, alice.origin)
            assert (await alice.post("/passkeys", {"nonce": nonce, "answer": made})).status_code == 200
            assert (await alice.approve(hold)).status_code == 200
        assert not (await w.call(helper, "acme__deploy", **DEPLOY)).is_error
        assert len(await w.store.passkeys_of(PersonName("alice"))) == 2
        # What such an agent was refused later names its key, too, and gives it to nobody.
        refused = {"actor": "agent:helper", "key": helper.key.public.thumbprint, "decision": "deny"}
        await w.store.append(Event(kind="enrolment", at=w.clock(), fields=refused))

        records, evidence = await of(w, hold)
        assert list(evidence["passkeys"]) == [b64url(alice.passkey.id)]
        delegated = [str(it["fields"]) for it in records if it["kind"] == "delegation"]
        assert delegated and not any("agent:other" in it for it in delegated)
        given = [it["fields"] for it in records if it["kind"] == "enrolment"]
        assert helper.key.public.thumbprint in {it.get("key") for it in given}
        assert all(it.get("decision") != "deny" and it.get("passkey") != made["id"] for it in given)
        assert other.key.public.thumbprint not in str(records)

        signed = (await w.call(helper, "acme__deploy", **{**DEPLOY, "version": "2"})).hold
        await w.answer(signed, by="alice")
        theirs = w.approvers["alice"].public.thumbprint
        assert theirs in keys_in((await of(w, signed))[1])
        assert not (await w.call(helper, "acme__deploy", **{**DEPLOY, "version": "2"})).is_error
        what = of_calls(await records_of(w.store, signed))
        gone: Shredded = await shred_now(w.store, what, whose="of it", reason="x", by=OPERATOR, at=w.clock())
        assert gone.holds == (signed,)
        _, evidence = await of(w, signed)
        assert evidence["verdicts"] == evidence["shown"] == evidence["calls"] == []
        assert theirs not in keys_in(evidence)
