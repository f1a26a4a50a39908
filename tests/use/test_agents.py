"""Enrolment: names, keys, rotation, and a record of who did it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.principals import AgentName
from mcp_authz.rules.keys import PrivateKey
from tests.oauth.house import OPERATOR, office


@pytest.mark.parametrize(
    "name",
    ["", "-coder", "Coder", "agent:coder", "coder/worker", "co der", "coder\n", "c" * 64, "\uff43oder", "coder@alice"],
)
async def test_a_name_has_one_spelling_and_nothing_that_means_something_elsewhere(tmp_path: Path, name: str) -> None:
    async with office(tmp_path) as h:
        await h.person("alice")
        with pytest.raises(InputError):
            await h.agents.add(name, owner="alice", by=OPERATOR)
        with pytest.raises(InputError):
            await h.agents.add("planner", owner="alice", delegates_to=frozenset({AgentName(name)}), by=OPERATOR)
        assert await h.agents.list() == ()


async def test_enrolling_an_agent_is_recorded_with_who_did_it(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder", "pr:write")
        (fields,) = await h.events("enrolment")
        assert (fields["agent"], fields["by"], fields["owner"]) == ("agent:coder", OPERATOR, "user:alice")
        assert (fields["key"], fields["ceiling"]) == (coder.key.public.thumbprint, ["pr:write"])


async def test_an_agent_belongs_to_an_active_person(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        with pytest.raises(NotFound):
            await h.agents.add("coder", owner="alice", by=OPERATOR)
        await h.person("alice")
        await h.revoke("person", "alice")
        with pytest.raises(NotFound):
            await h.agents.add("coder", owner="alice", by=OPERATOR)


@pytest.mark.parametrize("depth", [-1, 8])
async def test_the_depth_of_an_agent_is_bounded(tmp_path: Path, depth: int) -> None:
    async with office(tmp_path) as h:
        await h.person("alice")
        with pytest.raises(InputError):
            await h.agents.add("coder", owner="alice", depth=depth, by=OPERATOR)


async def test_a_name_is_given_once(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder")
        with pytest.raises(Conflict):
            await h.agents.add("coder", owner="alice", by=OPERATOR)


async def test_a_rotation_leaves_both_keys_until_the_overlap_has_passed(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        await h.agents.rotate("coder", new.public, timedelta(minutes=5), by=OPERATOR)
        old_key, new_key = (await h.agents.show("coder")).keys
        assert (old_key.thumbprint, new_key.thumbprint) == (coder.key.public.thumbprint, new.public.thumbprint)
        assert old_key.retires_at is not None and new_key.retires_at is None


async def test_a_third_key_waits_until_a_rotation_is_over(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder")
        await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(minutes=5), by=OPERATOR)
        with pytest.raises(Conflict):
            await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(minutes=5), by=OPERATOR)
        h.clock.advance(minutes=5)
        await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(0), by=OPERATOR)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=2)])
async def test_an_overlap_is_bounded(tmp_path: Path, overlap: timedelta) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder")
        with pytest.raises(InputError):
            await h.agents.rotate("coder", PrivateKey.generate().public, overlap, by=OPERATOR)


async def test_a_new_key_does_not_bring_a_revoked_agent_back(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder")
        await h.revoke("agent", "coder")
        with pytest.raises(Conflict):
            await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(0), by=OPERATOR)


async def test_an_approver_has_a_key_of_their_own(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.people.add("bob", groups=frozenset({"release"}), by=OPERATOR)
        key = await h.people.add_key("bob", PrivateKey.generate().public, by=OPERATOR)
        bob = await h.people.show("bob")
        assert bob.keys == (key,) and key.holder == "user:bob" and bob.person.groups == {"release"}
        assert [fields["by"] for fields in await h.events("administration")] == ["gateway", OPERATOR]


async def test_a_revoked_person_gets_no_key(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.person("bob")
        await h.revoke("person", "bob")
        with pytest.raises(Conflict):
            await h.people.add_key("bob", PrivateKey.generate().public, by=OPERATOR)


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        with pytest.raises(NotFound):
            await h.agents.show("coder")
        with pytest.raises(NotFound):
            await h.agents.rotate("coder", PrivateKey.generate().public, timedelta(0), by=OPERATOR)
        with pytest.raises(NotFound):
            await h.people.add_key("bob", PrivateKey.generate().public, by=OPERATOR)
