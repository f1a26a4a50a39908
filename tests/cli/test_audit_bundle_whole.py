"""One bundle with everything that can be signed about a call, in a process that has nothing but it and public keys."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.agents import Agents
from mcp_authz.audit_bundles import bundle_of
from mcp_authz.audit_excerpts import records_of
from mcp_authz.checkpoints import checkpoint_keys
from mcp_authz.cli.audit_evidence import excerpted, read_keys
from mcp_authz.client import AgentIdentity
from mcp_authz.errors import AuthzError
from mcp_authz.model import HoldId
from mcp_authz.principals import AgentName
from mcp_authz.rules.call_proof import INVOCATION
from mcp_authz.rules.evidence_checks import check_evidence
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import parse_chain, read_unverified
from tests.approving import DECIDE_ONE, DEPLOYS, SCOPE, Approver, at_client, said
from tests.cli.desk import COMMAND
from tests.cli.test_audit_bundle import places
from tests.cli.test_audit_evidence import DEPLOY, checkpoint
from tests.signing import Signing
from tests.standing import ANY, give
from tests.web.authenticator import visiting
from tests.world import MODERN, OPERATOR, ROOT, Called, World, world

RULE = {"destructive": {"by": ["group:approvers"], "quorum": 2, "assurance": "client-other"}}
TEAM = (("planner", 2, "coder"), ("coder", 1, "tester"), ("tester", 0, None))


async def team(w: World) -> tuple[AgentIdentity, str]:
    """Tester, and what planner gave coder, and coder tester, for alice: two links, each signed by who had it."""
    await w.person("alice", "approvers")
    await w.person("bob", "approvers")
    made = {}
    for name, depth, to in TEAM:
        made[name] = AgentIdentity.generate(name)
        await Agents(w.store, w.clock).add(
            name,
            owner="alice",
            key=made[name].public_key,
            ceiling=parse_scopes("deploy"),
            depth=depth,
            delegates_to=frozenset() if to is None else frozenset({AgentName(to)}),
            by=OPERATOR,
        )
    await w.start(await w.grant("alice", "planner", "deploy"), purpose="ship it")
    chain = await made["planner"].chain(w.url)
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in DEPLOY}}
    given: Any = {"tools": {DEPLOYS: schema}, "where": {"repo": ["api", "web"]}, "minutes": 10, "depth": 1}
    codes = made["planner"].delegate(chain, to=made["coder"].jwk, scope="deploy", **given)
    return made["tester"], made["coder"].delegate(codes, to=made["tester"], scope="deploy", tools=[DEPLOYS])


async def calls(w: World) -> list[HoldId]:
    """Three signed calls: by a passkey and another client; by a standing approval as it is given; and by its use."""
    tester, chain = await team(w)
    link = read_unverified(parse_chain(chain))[-1].id
    signing = Signing(key=tester.key, link=link, audience=w.config.resource)
    holds = []
    async with (
        httpx2.AsyncClient(auth=tester.auth(w.url, chain=chain), timeout=30) as http,
        Client(streamable_http_client(w.url, http_client=http)) as client,
    ):

        async def call(version: str) -> Called:
            arguments = {**DEPLOY, "version": version}
            meta: Any = {INVOCATION: signing.proof(DEPLOYS, arguments, at=w.clock())}
            done = await client.call_tool(DEPLOYS, arguments, meta=meta)
            return Called(done.model_dump(by_alias=True, mode="json", exclude_none=True))

        for version in ("1.4.0", "1.5.0", "1.6.0"):
            hold = (await call(version)).hold
            holds.append(hold)
            if version == "1.4.0":
                async with visiting(w, "alice") as alice:
                    assert (await alice.approve(hold, "looked at it")).status_code == 200
                desk = await w.client_agent("desk", "bob", scope=f"pr:read {SCOPE}")
                async with at_client(w, desk, MODERN, elicitation_callback=Approver({"answer": "approve"})) as theirs:
                    assert "is approved" in await said(theirs, DECIDE_ONE, hold=hold)
            else:
                if version == "1.5.0":
                    await give(w, hold, by="alice", version=ANY)
                await w.answer(hold, by="bob", reason="me too")
            assert not (await call(version)).is_error
    return holds


async def written(w: World, holds: list[HoldId]) -> tuple[Path, list[Path]]:
    """The public keys, and the bundles, as `audit explain` writes them."""
    keys, files = w.directory / "keys.json", [w.directory / f"{number}.json" for number in range(len(holds))]
    keys.write_text(json.dumps(await checkpoint_keys(w.store)))
    for hold, file in zip(holds, files, strict=True):
        records, url = await records_of(w.store, hold), w.config.public_url
        file.write_text(json.dumps(await bundle_of(w.store, w.clock, records, gateway=url, with_arguments=True)))
    return keys, files


def verified(home: Path, file: Path, keys: Path) -> str:
    """What a process says that has no home, no store and no configuration; only the two files."""
    home.mkdir(exist_ok=True)
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [*COMMAND, "audit", "verify", "--excerpt", str(file), "--keys", str(keys)],
        env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "✗" not in done.stdout and "no record in the bundle says so" not in done.stdout, done.stdout
    return done.stdout


def unseen(whole: dict[str, Any], file: Path, keys: Any) -> list[str]:
    """What of the evidence could be another value, or not be there, without anything being found wrong.

    Of what was shown that is asked where it is made (`tests/web/test_verdict_bundle.py`).
    """
    found, evidence = [], whole["evidence"]
    for where, holder, name in [*places({name: evidence[name] for name in evidence if name != "shown"})]:
        kept = holder[name]
        if isinstance(kept, str) and kept:
            at = len(kept) // 2
            other: Any = f"{kept[:at]}{'A' if kept[at] != 'A' else 'B'}{kept[at + 1 :]}"
        else:
            other = "another" if kept is None else None
        holder[name] = other
        file.write_text(json.dumps(whole))
        try:
            if not excerpted(file, keys).is_wrong:
                found.append(where)
        except AuthzError:
            pass
        holder[name] = kept
    return found


def of_another_passkey(file: Path, keys: Any) -> str:
    """What is wrong where the record of the passkey's registration has the digest of another public key."""
    records = excerpted(file, keys).records
    others = [
        replace(one, body={**one.body, "fields": {**one.body["fields"], "digest": "0" * 64}})
        if "passkey" in one.body["fields"]
        else one
        for one in records
    ]
    found = check_evidence(others, json.loads(file.read_text())["evidence"], lambda *_: None)
    return "\n".join(one.text for one in found if one.verdict == "wrong")


async def test_everything_that_was_signed_about_a_call_verifies_where_there_is_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path, approval=RULE) as w:
        holds = await calls(w)
        await checkpoint(w, tmp_path / "checkpoints.txt")
        keys, files = await written(w, holds)
    trusted = read_keys(keys)
    first = verified(tmp_path / "empty", files[0], keys)
    second, third = ["\n".join(one.text for one in excerpted(file, trusted).findings) for file in files[1:]]
    for told in (first, second, third):
        assert "3 signed links, root to leaf" in told and "the key of the first link is the gateway's" in told
        assert "this key is planner's" in told and "this key is coder's" in told and "this key is tester's" in told
        assert told.count("tester signed exactly this call of acme__deploy") == 2
        assert "rule destructive is met, 2 of 2" in told
        assert "left out" not in told and "no record in the bundle says so" not in told
    assert "a passkey signed that alice approved exactly this" in first
    assert "says that this passkey is alice's" in first and "the passkey is alice's is the gateway's word" not in first
    assert "the passkey is another one" in of_another_passkey(files[0], trusted)
    assert "the gateway signed that bob approved this" in first and "that bob answered (client-other)" in first
    for told in (second, third):
        assert "alice's own key signed" in told and "bob's own key signed that they approved exactly this" in told
        assert "by standing approval" in told
    for file in files:
        assert unseen(json.loads(file.read_text()), tmp_path / "changed.json", trusted) == []
