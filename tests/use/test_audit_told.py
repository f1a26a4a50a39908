"""One real call of each kind, and the sentence that `audit explain` tells of it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError

from mcp_authz import limits
from mcp_authz.audit_bundles import bundle_of
from mcp_authz.audit_excerpts import records_of
from mcp_authz.audit_story import story
from mcp_authz.checkpoints import checkpoint_keys
from mcp_authz.cli.audit_evidence import excerpted
from mcp_authz.model import HoldId
from mcp_authz.recovering import recover
from mcp_authz.retention import Prunable, prunable, prune, remove_pruned
from mcp_authz.revocation import Revocation
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.verdict_checks import Trust, verify_bundle
from mcp_authz.shredding import what_is_gone
from mcp_authz.store.ports import Event
from mcp_authz.verdict_bundles import export_bundle
from tests.attacks.test_34_revoked_while_running import permitted, plain
from tests.cli.test_audit_evidence import checkpoint
from tests.road.test_offers import bookshelf
from tests.standing import ANY, give
from tests.web.authenticator import visiting
from tests.world import OPERATOR, Actor, World, called, incident_server, world

PULL = {"owner": "acme", "repo": "api"}
DEPLOY = {**PULL, "environment": "staging", "version": "1.4.0"}
WAIT = {"tag": "x", "version": "1"}


ASKED = "coder, for alice, asked"
DEPLOYED = f"{ASKED} for deploy.create (deploy_environment staging, repo acme/api): held"
TOLD = {
    "direct": f"{ASKED} for pr.list (repo acme/api): permitted, done in a moment",
    "step-up": f"{ASKED} for pr.list (repo acme/api): "
    "sent back for a token with more scope (mcp:connect pr:read:acme:api)",
    "observed": f"{ASKED} for secret.read (secret_environment staging): permitted in observe mode "
    "(it would have been denied: its authority does not cover it), the tool reported an error",
    "resource": f"{ASKED} to read a resource of lib (uri book://one): permitted, done in a moment",
    "prompt": f"{ASKED} for a prompt of lib (prompt review): permitted, done in a moment",
    "unknown": f"{ASKED} for acme__read_secret: denied (there is no such tool for it)",
    "denied": f"{ASKED} for pr.list: denied (its arguments do not fit the tool)",
    "passkey": f"{DEPLOYED}, approved by alice with a passkey, done in a moment",
    "refused": f'{DEPLOYED}, denied by alice while signed in, who said "no"',
    "standing": f"{DEPLOYED}, approved by alice while signed in (standing approval a_1), done in a moment",
    "waiting": f"{ASKED} for deploy.create (deploy_environment test, repo acme/api): held, nobody has answered",
    "delegated": "helper, delegated by planner, for alice, asked for pr.list (repo acme/api): "
    "permitted, done in a moment",
    "running": f"{ASKED} for plain.use: permitted, no outcome is on record yet",
    "crashed": f"{ASKED} for plain.use: permitted, interrupted while it ran because the gateway stopped, "
    "nobody can say how far it came",
    "revoked": f"{ASKED} for plain.use: permitted, cancelled while it ran because what it stood on was revoked, "
    "nobody can say how far it came",
}


async def last_call(w: World) -> str:
    """The id of the call that was decided last."""
    return [record.event.call or "" for record in await w.records("decision")][-1]


async def told(w: World, of: str | None = None) -> str:
    """The story of this call or hold, or of the call that was decided last; how long it took left out."""
    records = await records_of(w.store, of or await last_call(w))
    return re.sub(r"in [0-9.]+ m?s\b", "in a moment", story([record.event for record in records]))


async def held(w: World, actor: Actor, version: str, answer: Callable[[HoldId], Awaitable[Any]]) -> str:
    """A deployment that somebody answers, and that its agent makes again then."""
    arguments = {**DEPLOY, "version": version}
    hold = (await w.call(actor, "acme__deploy", **arguments)).hold
    await answer(hold)
    await w.call(actor, "acme__deploy", **arguments)
    return await told(w, hold)


async def delegated(w: World) -> dict[str, str]:
    """Planner gave coder some of what it had for alice; and an agent that works for itself."""
    planner = await w.ready("planner", "pr", depth=1, delegates_to={"helper"})
    helper = await w.agent("helper", ceiling="pr")
    await w.delegate(planner, "helper", "pr:read")
    await w.call(helper, "acme__list_pull_requests", **PULL)
    return {"delegated": await told(w)}


async def cut_short(w: World, coder: Actor) -> dict[str, str]:
    """A call whose process is gone, and one whose session is revoked while it runs."""
    said, token, outcomes = dict[str, str](), await w.token(coder), len(await w.records("outcome"))

    async def call() -> None:
        await w.raw_call(token, "plain__wait", WAIT)

    async with anyio.create_task_group() as group:
        before = len([it for it in await w.decisions() if it["decision"] == "permit"])
        group.start_soon(call)
        await permitted(w, before + 1)
        gone = "UPDATE begun SET instance = 'i_gone'"
        await w.store._writer.run(lambda tx: tx.db.execute(gone))
        await recover(w.store, w.clock)
        said["crashed"] = await told(w)
        group.start_soon(call)
        await permitted(w, before + 2)
        said["running"] = await told(w)
        ((session, _),) = await w.store.open_links(coder.name, w.clock())
        await Revocation(w.store, w.clock).revoke("session", session.id, reason="done", by=OPERATOR)
        with anyio.fail_after(10):
            while len(await w.records("outcome")) < outcomes + 2:  # noqa: ASYNC110 - nobody tells a test
                await anyio.sleep(0.01)
        said["revoked"] = await told(w)
    return said


async def test_each_kind_of_call_is_told_as_a_person_would(tmp_path: Path) -> None:
    servers = {
        "acme": incident_server(tmp_path),
        "lax": {**incident_server(tmp_path / "lax"), "mode": "observe"},
        "lib": bookshelf(),
        "plain": plain("read"),
    }
    said: dict[str, str] = {}
    async with world(tmp_path, servers=servers) as w, anyio.create_task_group() as group:
        coder = await w.ready("coder", "pr deploy lib plain")
        async with w.client(coder) as client:
            await called(client, "acme__list_pull_requests", PULL)
            said["direct"] = await told(w)
            first = next(r.event.call for r in await w.records("decision"))
            said["step-up"] = await told(w, first)
            await called(client, "lax__read_secret", {"environment": "staging", "name": "db"})
            said["observed"] = await told(w)
            await client.read_resource("book://one")
            said["resource"] = await told(w)
            (prompt,) = (await client.list_prompts()).prompts
            await client.get_prompt(prompt.name, {"title": "moby"})
            said["prompt"] = await told(w)
            with pytest.raises(MCPError, match="Unknown tool"):
                await called(client, "acme__read_secret", {"environment": "staging", "name": "db"})
            said["unknown"] = await told(w)
            await called(client, "acme__list_pull_requests", {"owner": "acme"})
            said["denied"] = await told(w)
        async with visiting(w, "alice") as alice:
            said["passkey"] = await held(w, coder, "1", alice.approve)
        said["refused"] = await held(w, coder, "2", lambda hold: w.answer(hold, by="alice", approve=False, reason="no"))
        await held(w, coder, "3", lambda hold: give(w, hold, by="alice", version=ANY))
        await w.call(coder, "acme__deploy", **{**DEPLOY, "version": "4"})
        said["standing"] = await told(w)
        said["waiting"] = await told(w, (await w.call(coder, "acme__deploy", **{**DEPLOY, "environment": "test"})).hold)
        said |= await delegated(w)
        said |= await cut_short(w, coder)
        group.cancel_scope.cancel()
    assert {kind: re.sub(r"\ba_[a-z2-7]{26}", "a_1", text) for kind, text in said.items()} == TOLD


async def test_a_call_whose_first_records_were_pruned_is_told_with_what_is_left_and_shown_without_being_wrong(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, audit={"evidence_days": 90}) as w:
        coder = await w.ready("coder", "deploy")
        hold = (await w.call(coder, "acme__deploy", **DEPLOY)).hold
        await w.answer(hold, by="alice")
        await checkpoint(w, tmp_path / "checkpoints.txt")
        assert not (await w.call(coder, "acme__deploy", **DEPLOY)).is_error
        call, file = await last_call(w), tmp_path / "bundle.json"
        w.clock.advance(limits.LOG_KEPT_LEAST + timedelta(days=1))
        await w.store.append(Event(kind="administration", at=w.clock(), fields={}))  # kept inputs go with any write
        what = await prunable(w.store, limits.LOG_KEPT_LEAST, w.clock())
        assert isinstance(what, Prunable), what
        await prune(w.store, w.clock, what, path=tmp_path / "data" / "store.db", by=OPERATOR, archive=None)
        await remove_pruned(w.store)
        await checkpoint(w, tmp_path / "checkpoints.txt")
        (gone,) = await what_is_gone(w.store, await records_of(w.store, call))
        assert gone.startswith("the log begins behind record ") and "pruned" in gone
        assert (await told(w, call)).endswith(
            "asked for deploy.create (deploy_environment staging, repo acme/api): "
            "approved by alice while signed in, done in a moment"
        )
        url, keys = w.config.public_url, await checkpoint_keys(w.store)
        records = await records_of(w.store, call)
        made = await bundle_of(w.store, w.clock, records, gateway=url, with_arguments=True)
        alone = await export_bundle(w.store, w.clock, await w.store.hold(hold), gateway=url)
    file.write_text(json.dumps(made))
    shown = excerpted(file, {jwk["kid"]: PublicKey.from_jwk(jwk) for jwk in keys["keys"]})
    assert not shown.is_wrong and len(shown.records) == 2, shown
    found = verify_bundle(alone, Trust(keys=None, passkey=lambda *_: None))
    assert "wrong" not in {one.verdict for one in found}
    assert any("the verdict of alice is in the bundle: the log was pruned" in one.text for one in found)
