"""`make demo`: the incident of the README, told with real parts.

A gateway on its own port, a tool server in a process of its own, stock SDK clients that log in with Ed25519 keys. On a
terminal you are asked to approve the deploy yourself; otherwise the second person does it with their key.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from examples.incident.cast import Stage, on_stage
from examples.incident.server import read_deployments
from mcp_authz.audit import sentence

SCOPES = "pr:read:acme:api pr:write:acme:api secret:read deploy:production:acme:api deploy-log:acme:api"
DELEGATED = "pr:read:acme:api pr:write:acme:api secret:read deploy:production:acme:api"
DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}


def say(text: str = "") -> None:
    """One line of the story."""
    print(text, flush=True)


async def story(stage: Stage) -> None:
    """The incident, sentence by sentence."""
    await stage.person("alice")
    await stage.person("bob", "release-managers")
    planner = await stage.agent("planner", SCOPES, depth=1, delegates_to=frozenset({"coder"}))
    coder = await stage.agent("coder", SCOPES, labels={"environment": "staging"})
    say("1. alice starts a session for agent planner: fix issue 41 in acme/api")
    await stage.start("alice", "planner", SCOPES, "fix issue 41 in acme/api")

    link = await stage.delegate(planner, "coder", DELEGATED, seconds=600)
    say("2. planner delegates to coder for ten minutes, by token exchange")

    listed = await (await stage.client(coder)).list_tools()
    names = sorted(tool.name for tool in listed.tools)
    tools = [name.removeprefix("acme__") for name in names if name.startswith("acme__")]
    say(f"3. coder lists tools and sees what it could use: {', '.join(tools)}")

    pull = {"owner": "acme", "repo": "api", "title": "Fix issue 41", "branch": "fix-41", "draft": True}
    done = await stage.call(coder, "open_pull_request", pull)
    say(f"4. coder opens a draft pull request: {'PERMITTED' if not done.is_error else done.text}")

    secret = await stage.call(coder, "read_secret", {"environment": "production", "name": "db-password"})
    say(f"5. coder reads a production secret: {secret.verdict}")
    say(f"   {secret.text}")
    say(f"   rule: {', '.join(secret.envelope.get('because', []))}")

    held = await stage.held(coder, "deploy", DEPLOY)
    say("6. coder asks to deploy acme/api to production: HELD, nothing ran, and the call waits")
    assert not read_deployments(stage.state)

    say("7. bob, who is not alice, looks at exactly this call:")
    approved = await approve(stage, held.hold)
    say(f"   {'APPROVED by bob, with his key' if approved else 'DENIED by bob'}")

    ran = await held.call
    if ran.verdict == "HELD":  # bob took his time: a call waits for some minutes, and is then made again
        ran = await stage.call(coder, "deploy", DEPLOY)
    count = len(read_deployments(stage.state))
    say(f"8. coder's call goes on by itself: {ran.verdict}; deployments on the tool server's disk: {count}")

    again = await stage.call(coder, "deploy", DEPLOY)
    await (await stage.held(coder, "deploy", {**DEPLOY, "version": "6.6.6"})).give_up()
    refused = await stage.approve_again(held.hold, "bob")
    count = len(read_deployments(stage.state))
    say(f"9. using the approval again is refused: same call {again.verdict}, another version HELD,")
    say(f"   bob's second verdict {refused}; deployments: {count}")

    await stage.revoke(link)
    after = await stage.try_call(coder, "list_pull_requests", {"owner": "acme", "repo": "api"})
    still = await stage.call(planner, "list_pull_requests", {"owner": "acme", "repo": "api"})
    works = "still works" if not still.is_error else still.text
    say(f"10. coder's delegation is REVOKED: coder {after}, planner {works}")


async def approve(stage: Stage, hold: str) -> bool:
    """Bob's verdict: asked for on a terminal, given with his key."""
    shown = await stage.shown(hold)
    say("\n".join(f"   | {line}" for line in shown.splitlines()))
    if sys.stdin.isatty():
        say()
        said = await asyncio.to_thread(input, "   approve this call as bob? [y/N] ")
        answer = said.strip().lower() in {"y", "yes"}
    else:
        answer = True
    await stage.verdict(hold, "bob", approve=answer)
    return answer


async def audit(stage: Stage) -> None:
    """What the log says of all that, and whether it hangs together."""
    say()
    say("The audit log says:")
    for record in await stage.records():
        if record.event.kind in {"decision", "approval", "delegation", "revocation"}:
            say(f"  {record.sequence:>3}  {sentence(record.event)}")
    say(f"audit verify: {stage.verify()}")


async def main() -> None:
    """Tell it all in a directory that is gone afterwards."""
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="mcp-authz-demo-") as directory:
        async with on_stage(Path(directory)) as stage:
            await story(stage)
            await audit(stage)


if __name__ == "__main__":
    asyncio.run(main())
