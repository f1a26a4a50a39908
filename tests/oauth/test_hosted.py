"""Agents that are hosted elsewhere: their keys are those of a document on a real https server."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.enrolment import Codes
from mcp_authz.errors import Conflict, FetchRefused, KeyRefused, NotFound
from mcp_authz.hosted import OVERLAP, HostedAgents
from mcp_authz.principals import AgentName
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.elsewhere import Elsewhere, elsewhere, plain
from tests.oauth.house import JWT, OPERATOR, Actor, House, house, office, refused

GRANT = {"grant_type": "client_credentials"}


async def hosted(h: House, host: Elsewhere, name: str = "coder", **more: Any) -> Actor:
    """An agent that is enrolled by the document that the host has of it."""
    key = PrivateKey.generate()
    url = host.declare(key.public, path=f"/{name}", **more)
    if "alice" not in {person.name for person in await h.people.list()}:
        await h.person("alice")
    await h.agents.add(name, owner="alice", key=key.public, metadata_url=url, by=OPERATOR)
    return Actor(AgentName(name), key)


async def current(h: House, name: str = "coder") -> set[str]:
    """The keys with which the agent can sign in."""
    return {key.thumbprint for key in (await h.agents.show(name)).keys if key.retires_at is None}


async def test_an_agent_that_is_hosted_elsewhere_signs_in_by_its_name_or_its_url(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder = await hosted(h, host)
        for id_ in ("coder", host.url("/coder")):
            answer = await h.sign_in(coder, claims={"iss": id_, "sub": id_}, client_id=id_)
            assert h.read(answer["access_token"]).actor == "coder"
        assert len(host.asked) == 1  # its keys are fresh for a while


async def test_a_key_that_its_document_shows_since_a_moment_ago_signs_in(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder, new = await hosted(h, host), PrivateKey.generate()
        await h.sign_in(coder)
        token = await h.token(coder)
        host.declare(new.public)
        h.clock.advance(minutes=1)
        assert await h.sign_in(Actor(coder.name, new))
        assert await current(h) == {new.public.thumbprint}
        refused(await h.post(coder, **GRANT), "invalid_client")
        assert (await h.caller(token)).agent.name == "coder"  # until the overlap is over
        h.clock.advance(seconds=OVERLAP.total_seconds())
        assert (await h.store.keys_of("agent:coder"))[0].retires_at is not None


async def test_unknown_keys_make_the_gateway_read_a_document_once_a_minute_at_most(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder = await hosted(h, host)
        await h.sign_in(coder)
        stranger = Actor(coder.name, PrivateKey.generate())
        h.clock.advance(minutes=1)
        for _ in range(5):
            refused(await h.post(stranger, **GRANT), "invalid_client")
        assert len(host.asked) == 2
        h.clock.advance(minutes=1)
        refused(await h.post(stranger, **GRANT), "invalid_client")
        assert len(host.asked) == 3


async def test_of_many_that_sign_in_with_a_new_key_at_once_one_reads_and_all_come_in(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder, new = await hosted(h, host), PrivateKey.generate()
        await h.sign_in(coder)
        host.declare(new.public)
        h.clock.advance(minutes=1)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(h.sign_in, Actor(coder.name, new))
        assert len(host.asked) == 2


async def test_a_document_is_read_again_when_its_keys_are_an_hour_old(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder = await hosted(h, host)
        await h.sign_in(coder)
        host.declare(PrivateKey.generate().public)  # the host has given the key up, perhaps because it was stolen
        h.clock.advance(minutes=59)
        await h.sign_in(coder)
        h.clock.advance(minutes=1)
        refused(await h.post(coder, **GRANT), "invalid_client")


async def test_keys_count_a_day_while_their_host_is_away_and_no_longer(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder = await hosted(h, host)
        await h.sign_in(coder)
        host.answers.clear()
        h.clock.advance(hours=23)
        await h.sign_in(coder)
        h.clock.advance(hours=1)
        refused(await h.post(coder, **GRANT), "invalid_client")
        assert [fields["reason"] for fields in await h.events("enrolment") if "reason" in fields] == [
            f"`{host.url()}` answers with HTTP 404"
        ]
        host.declare(coder.key.public)
        h.clock.advance(minutes=1)
        await h.sign_in(coder)


async def test_a_document_without_any_change_is_read_without_a_record(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        await hosted(h, host)
        before = await h.events("enrolment")
        await HostedAgents(h.store, h.clock, host.fetcher()).refresh("coder", by=OPERATOR)
        assert await h.events("enrolment") == before


async def test_two_keys_of_a_document_are_both_current_and_a_third_waits(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        coder, second, third = await hosted(h, host), PrivateKey.generate(), PrivateKey.generate()
        agents = HostedAgents(h.store, h.clock, host.fetcher())
        host.declare(coder.key.public, second.public)
        await agents.refresh("coder", by=OPERATOR)
        assert await current(h) == {coder.key.public.thumbprint, second.public.thumbprint}
        host.declare(second.public, third.public)
        with pytest.raises(Conflict, match="3 active keys"):
            await agents.refresh("coder", by=OPERATOR)
        assert await current(h) == {coder.key.public.thumbprint, second.public.thumbprint}
        host.declare(second.public)
        await agents.refresh("coder", by=OPERATOR)
        h.clock.advance(seconds=OVERLAP.total_seconds())
        host.declare(second.public, third.public)
        await agents.refresh("coder", by=OPERATOR)
        assert await current(h) == {second.public.thumbprint, third.public.thumbprint}


async def test_a_key_that_left_the_document_comes_back_within_the_overlap_and_never_after(tmp_path: Path) -> None:
    """A host that is asked through several caches may show what it showed before, for a while."""
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        coder, new = await hosted(h, host), PrivateKey.generate()
        agents = HostedAgents(h.store, h.clock, host.fetcher())
        for keys in ((new.public,), (coder.key.public,), (new.public,)):
            host.declare(*keys)
            await agents.refresh("coder", by=OPERATOR)
            assert await current(h) == {key.thumbprint for key in keys}
        h.clock.advance(seconds=OVERLAP.total_seconds())
        host.declare(coder.key.public)
        with pytest.raises(Conflict, match="was replaced before"):
            await agents.refresh("coder", by=OPERATOR)
        assert await current(h) == {new.public.thumbprint}


async def test_a_key_that_was_revoked_here_stays_revoked_whatever_the_document_says(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder, second = await hosted(h, host), PrivateKey.generate()
        await h.revoke("key", coder.key.public.thumbprint)
        agents = HostedAgents(h.store, h.clock, host.fetcher())
        with pytest.raises(Conflict, match="was revoked"):
            await agents.refresh("coder", by=OPERATOR)
        host.declare(coder.key.public, second.public)
        await agents.refresh("coder", by=OPERATOR)
        refused(await h.post(coder, **GRANT), "invalid_client")
        await h.sign_in(Actor(coder.name, second))


async def test_a_document_that_shows_somebody_elses_key_changes_nothing(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        coder, planner = await hosted(h, host), await h.agent("planner")
        host.declare(planner.key.public, PrivateKey.generate().public)
        with pytest.raises(Conflict, match="somebody already"):
            await HostedAgents(h.store, h.clock, host.fetcher()).refresh("coder", by=OPERATOR)
        assert await current(h) == {coder.key.public.thumbprint}


async def test_keys_may_be_at_a_url_of_their_own_which_is_guarded_alike(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        key = PrivateKey.generate().public
        agents = HostedAgents(h.store, h.clock, host.fetcher())
        url = host.declare(jwks=None, jwks_uri=host.url("/keys"))
        host.answers["/keys"] = plain(
            f'{{"keys":[{key.jwk}]}}'.replace("'", '"').encode(), kind="application/jwk-set+json"
        )
        assert await agents.keys_at(url) == (key,)
        for inside in ("http://agents.example.com/keys", "https://127.0.0.1/keys", "https://localhost/keys"):
            with pytest.raises(FetchRefused):
                await agents.keys_at(host.declare(jwks=None, jwks_uri=inside))


@pytest.mark.parametrize("jwks", [{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]}, {"keys": []}], ids=str)
async def test_a_document_with_a_key_that_is_none_is_refused_whole(tmp_path: Path, jwks: Any) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        with pytest.raises(KeyRefused):
            await HostedAgents(h.store, h.clock, host.fetcher()).keys_at(host.declare(jwks=jwks))


async def test_only_the_document_gives_keys_to_an_agent_that_is_hosted_elsewhere(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        await hosted(h, host)
        with pytest.raises(Conflict, match="agent refresh"):
            await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(0), by=OPERATOR)


async def test_an_agent_that_is_not_hosted_elsewhere_is_not_refreshed(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, office(tmp_path) as h:
        await h.agent("planner")
        agents = HostedAgents(h.store, h.clock, host.fetcher())
        with pytest.raises(Conflict, match="agent rotate"):
            await agents.refresh("planner", by=OPERATOR)
        with pytest.raises(NotFound):
            await agents.refresh("nobody", by=OPERATOR)


async def test_for_an_agent_that_was_revoked_nothing_is_fetched(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder = await hosted(h, host)
        await h.revoke("agent", "coder")
        refused(await h.post(coder, **GRANT), "invalid_client")
        assert host.connections == 0


async def test_a_host_that_is_slow_keeps_only_its_own_agent_waiting(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder, far = await h.agent("coder"), await hosted(h, host, "far")
        over = anyio.Event()

        async def late(_: object) -> None:
            await over.wait()

        host.answers["/far"] = late
        stranger = Actor(far.name, PrivateKey.generate())
        async with anyio.create_task_group() as group:
            for _ in range(limits.SIGN_INS + 4):
                group.start_soon(partial(h.post, stranger, **GRANT))
            await anyio.sleep(0.3)  # until they are all there
            with anyio.fail_after(2):
                await h.sign_in(coder)
            assert len(host.asked) == 1
            over.set()


@pytest.mark.parametrize("kind", ["hosted", "child"])
async def test_no_code_is_made_for_an_agent_that_gets_its_keys_otherwise(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path) as h:
        await h.person("alice")
        url = "https://agents.example.com/coder"
        await h.agents.add("coder", owner="alice", metadata_url=url if kind == "hosted" else None, by=OPERATOR)
        name = AgentName("coder")
        if kind == "child":
            parent = await h.agent("planner", depth=2)
            await h.start(parent)
            child = Actor(AgentName("planner/worker"), PrivateKey.generate())
            chain = h.derive(await h.root(parent), parent, child, child="worker")
            assert (await h.exchange(child, chain, JWT)).status_code == 200
            await h.revoke("key", child.key.public.thumbprint)
            name = child.name
        with pytest.raises(Conflict, match="agent refresh" if kind == "hosted" else "is a child"):
            await Codes(h.store, h.clock).make(name, by=OPERATOR)
