"""A policy may demand that the person signed in lately (RFC 9470): who can ask them is sent back, nobody else is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.audit import sentence
from mcp_authz.principals import Authentication
from mcp_authz.rules.keys import PrivateKey
from tests.proofs import Prover
from tests.road.places import BOTH
from tests.road.test_client_agents import PULL, TOOL, reason
from tests.road.wire import wire
from tests.world import World, modern_call, world

FRESH = """
@id("fresh") @step_up("300") permit (principal, action == Action::"pr.list", resource);
@id("rest") permit (principal, action == Action::"pr.create", resource);
"""


def policy(directory: Path, text: str = FRESH) -> dict[str, Any]:
    """The configuration of a gateway with this policy alone."""
    path = directory / "fresh.cedar"
    path.write_text(text)
    return {"policy": [str(path)]}


def signed_in(w: World, seconds: int) -> Authentication:
    return Authentication(at=w.clock() - timedelta(seconds=seconds), amr=("swk", "user"))


@BOTH
async def test_a_client_agent_is_sent_to_sign_in_again_and_then_goes_on(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, **policy(tmp_path)) as w:
        cursor = await w.client_agent("cursor", "alice", scope="pr", authentication=signed_in(w, 600))
        async with wire(w, cursor, mode) as client:
            refused = await client.call(TOOL, PULL)
            error = (await refused.end())["error"]
        asked = w.running.step_ups.of(cursor.name)
        again = await w.client_agent("cursor", "alice", scope="pr", authentication=signed_in(w, 5))
        async with wire(w, again, mode) as client:
            done = await (await client.call(TOOL, PULL)).result()
        first, *_ = await w.records("decision")
    metadata = f"{w.config.public_url}/.well-known/oauth-protected-resource/mcp"
    assert refused.status == 401 and refused.response.headers["content-type"] == "application/json"
    assert refused.challenge == (
        'Bearer error="insufficient_user_authentication", error_description="the person has to sign in again: this '
        'call needs a sign-in of the last 300 seconds", max_age="300", scope="mcp:connect pr", '
        f'resource_metadata="{metadata}"'
    )
    assert error["code"] == 40100 and error["data"]["max_age"] == 300 and error["data"]["reason"] == "stale_sign_in"
    assert (asked.tool, asked.scopes, asked.max_age) == (TOOL, (), timedelta(seconds=300))
    assert not done.get("isError")
    assert first.event.fields["max_age"] == 300
    assert sentence(first.event).endswith("sent back to sign in again")


async def test_a_client_that_proves_its_key_is_challenged_in_its_own_scheme(tmp_path: Path) -> None:
    async with world(tmp_path, **policy(tmp_path)) as w:
        key = PrivateKey.generate()
        bound = {"authentication": signed_in(w, 600), "confirmation": key.public}
        p, body = Prover(w, key), modern_call(TOOL, PULL)
        cursor = await w.client_agent("cursor", "alice", scope="pr", **bound)
        await p.send(body, cursor.access_token)  # the nonce comes with its answer
        stale = await p.send(body, cursor.access_token)
        narrow = await w.client_agent("cursor", "alice", scope="deploy:read", **bound)
        missing = await p.send(body, narrow.access_token)
    assert (stale.status_code, missing.status_code) == (401, 403)
    said, more = stale.headers["www-authenticate"], missing.headers["www-authenticate"]
    assert said.startswith('DPoP algs="') and ', error="insufficient_user_authentication", ' in said
    assert more.startswith('DPoP algs="') and ', error="insufficient_scope", scope="deploy:read mcp:' in more
    assert "Bearer" not in said + more


@pytest.mark.parametrize("who", ["an operator started it", "an agent with a key"])
async def test_who_has_nobody_to_send_is_denied_and_told_what_to_do(tmp_path: Path, who: str) -> None:
    async with world(tmp_path, **policy(tmp_path)) as w:
        if who == "an agent with a key":
            token = await w.token(await w.ready("coder", "pr"))
        else:
            cursor = await w.client_agent("cursor", "alice", scope="pr", authentication="unknown")
            token = cursor.access_token
        denied = await w.raw_call(token, TOOL, PULL)
        allowed = await w.raw_call(token, "acme__open_pull_request", {**PULL, "title": "t", "body": "b", "head": "h"})
        *_, last = await w.records("decision")
    assert reason(denied) == "stale_sign_in" and "they have to sign in and start a session" in denied.text
    assert not denied.headers.get("www-authenticate") and "max_age" not in last.event.fields
    assert "stale_sign_in" not in allowed.text


async def test_a_sign_in_grows_stale_under_a_token_that_is_still_good(tmp_path: Path) -> None:
    async with world(tmp_path, **policy(tmp_path)) as w:
        cursor = await w.client_agent("cursor", "alice", scope="pr", authentication=signed_in(w, 5))
        assert (await w.raw_call(cursor.access_token, TOOL, PULL)).status_code == 200
        w.clock.advance(timedelta(seconds=300))
        assert (await w.raw_call(cursor.access_token, TOOL, PULL)).status_code == 401


async def test_nobody_is_sent_to_sign_in_again_and_again(tmp_path: Path) -> None:
    async with world(tmp_path, **policy(tmp_path)) as w:
        cursor = await w.client_agent("cursor", "alice", scope="pr", authentication=signed_in(w, 600))
        answers = [await w.raw_call(cursor.access_token, TOOL, PULL) for _ in range(limits.STEP_UP_REPEATED + 2)]
    assert [one.status_code for one in answers[:-1]] == [401] * (limits.STEP_UP_REPEATED + 1)
    assert reason(answers[-1]) == "step_up_limit"
