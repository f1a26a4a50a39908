"""Row 18: nothing counts before its time, after it, or for longer than its kind may live, give or take 30 seconds."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.rules import jose
from tests.oauth.house import JWT, claims_of, expect, house, refused

GRANT = {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    ("offsets", "accepted"),
    [
        ({"iat": 25}, True),
        ({"iat": 35}, False),
        ({"nbf": 25}, True),
        ({"nbf": 35}, False),
        ({"exp": 600}, True),
        ({"exp": 640}, False),
        ({"exp": -25, "iat": -60}, True),
        ({"exp": -35, "iat": -60}, False),
        ({"exp": 10**9}, False),
        ({"exp": 10**12}, False),
        ({"iat": 10**12}, False),
    ],
    ids=str,
)
async def test_an_assertion_counts_in_its_time_only(tmp_path: Path, offsets: dict[str, int], accepted: bool) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        now = int(h.clock().timestamp())
        claims: dict[str, Any] = {name: now + offset for name, offset in offsets.items()}
        answer = await h.post(coder, **GRANT, client_assertion=h.assertion(coder, **claims))
        if accepted:
            expect(answer)
        else:
            refused(answer, "invalid_client")


async def test_an_assertion_needs_no_issue_time_and_gains_nothing_by_leaving_it_out(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        expect(await h.post(coder, **GRANT, client_assertion=h.assertion(coder, iat=None)))
        late = int(h.clock().timestamp()) + 700
        refused(await h.post(coder, **GRANT, client_assertion=h.assertion(coder, iat=None, exp=late)), "invalid_client")


async def test_an_assertion_stays_used_for_as_long_as_it_could_count(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        assertion = h.assertion(coder, exp=int(h.clock().timestamp()) + 590)
        expect(await h.post(coder, **GRANT, client_assertion=assertion))
        for _ in range(7):
            h.clock.advance(seconds=88)
            refused(await h.post(coder, **GRANT, client_assertion=assertion), "invalid_client")


async def test_a_token_ends_at_its_time_and_not_when_its_bearer_says(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.start(coder)
        headers = {"Authorization": f"Bearer {await h.token(coder)}"}
        h.clock.advance(minutes=10)
        assert (await h.http.post(h.resource, json={}, headers=headers)).status_code == 200  # within the skew
        h.clock.advance(seconds=31)
        assert (await h.http.post(h.resource, json={}, headers=headers)).status_code == 401


async def test_a_token_from_the_future_does_not_count_yet(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        headers = {"Authorization": f"Bearer {await h.token(coder)}"}
        h.clock.advance(seconds=-35)
        assert (await h.http.post(h.resource, json={}, headers=headers)).status_code == 401


@pytest.mark.parametrize("value", [float("1e15"), 1e300, -1, True, "1767323045", None, [1], 2**53 - 1], ids=str)
@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
async def test_a_time_that_is_no_time_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        said = {**claims_of(await h.token(coder)), name: value}
        forged = jose.sign(said, typ="at+jwt", key=h.keys.signing, kid=h.keys.kid)
        answer = await h.http.post(h.resource, json={}, headers={"Authorization": f"Bearer {forged}"})
        assert answer.status_code == 401


async def test_a_chain_ends_with_the_link_that_it_ends_in(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _, _ = await h.family()
        chain = h.derive(await h.root(planner), planner, coder, lifetime=timedelta(seconds=60))
        expect(await h.exchange(coder, chain, JWT))
        h.clock.advance(seconds=61)  # within the skew of what is signed, and past the link
        refused(await h.exchange(coder, chain, JWT), "invalid_grant")
        h.clock.advance(seconds=30)
        refused(await h.exchange(coder, chain, JWT), "invalid_request")


async def test_a_link_from_the_future_is_refused_until_then(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        chain = await h.root(planner)
        h.clock.advance(seconds=60)
        later = h.derive(chain, planner, coder)
        h.clock.advance(seconds=-60)
        refused(await h.exchange(coder, later, JWT), "invalid_request")
        assert await h.store.links(session.id) == (root,)
