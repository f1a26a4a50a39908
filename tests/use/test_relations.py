"""What a person is to a thing: an owner through the chain above it, whoever gave an approval, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mcp_authz.model import ApprovalRule, Assurance, HoldId, StandingId
from mcp_authz.principals import AgentName, PersonName
from mcp_authz.relations import what_is
from mcp_authz.rules.administration import Role
from mcp_authz.store.sqlite import SqliteStore
from mcp_authz.store.witness import Mark, Witness
from tests.store.conftest import SEALER
from tests.store.world import Time, agent, event, grant, held, key, link, open_hold, person, settle


async def test_owner_is_whoever_owns_an_agent_of_the_chain_down_to_the_thing_and_of_none_below(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        for who, owned in (("olga", "middle"), ("zoe", "last")):
            await store.add_person(person(who), event())
            await store.add_agent(replace(agent(owned), owner=PersonName(who)), key(f"agent:{owned}"), event())
        await store.add_link(link("l_middle", "l_leaf", "middle", depth=2), event())
        await store.add_link(link("l_last", "l_middle", "last", depth=3), event())
        olga, zoe, alice = person("olga"), person("zoe"), person()
        assert await what_is(store, olga, "link", "l_last") == await what_is(store, olga, "link", "l_middle")
        assert await what_is(store, olga, "link", "l_last") == {Role.OWNER}
        assert await what_is(store, zoe, "link", "l_last") == {Role.OWNER}
        for above in ("l_middle", "l_leaf", "l_root"):
            assert await what_is(store, zoe, "link", above) == frozenset()
        assert await what_is(store, olga, "session", "s_1") == frozenset()
        assert await what_is(store, alice, "session", "s_1") == {Role.OWNER, Role.PERSON}
        assert await what_is(store, zoe, "agent", "last") == {Role.OWNER}
        assert await what_is(store, zoe, "agent", "nobody") == frozenset()
    finally:
        await store.aclose()


async def test_an_approver_may_answer_a_call_and_is_nobody_to_one_of_others(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        rule = ApprovalRule(name="one", by=("group:ops",), quorum=1, assurance=Assurance.SIGNED_IN)
        await open_hold(store, held(rules=(rule,), actor=AgentName("coder")))
        ops = replace(person("bob"), groups=frozenset({"ops"}))
        assert await what_is(store, ops, "hold", "h_1") == {Role.APPROVER}
        assert await what_is(store, person("bob"), "hold", "h_1") == frozenset()
        assert await what_is(store, ops, "hold", "h_2") == frozenset()
    finally:
        await store.aclose()


class OneApproval:
    """A store with one standing approval more, given by bob and made from `h_1`."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def standing_approval(self, standing: StandingId) -> Any:
        terms = SimpleNamespace(person=PersonName("bob"), hold=HoldId("h_1"))
        return SimpleNamespace(terms=terms) if standing == "a_1" else None


async def test_each_thing_has_an_owner_a_person_it_is_for_and_whoever_answered(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        await store.add_person(person("olga"), event())
        await store.add_person(person("carol"), event())
        await store.add_key(key("user:carol"), event(), retire_others_at=None)
        lent = AgentName("lent")
        await store.add_agent(replace(agent(lent), owner=PersonName("olga")), key(f"agent:{lent}"), event())
        await store.add_grant(grant("g_lent", lent), event())
        ops = ApprovalRule(name="one", by=("group:ops",), quorum=1, assurance=Assurance.SIGNED_IN)
        await open_hold(store, held(rules=(ops,), actor=lent, owner=PersonName("olga")))
        every: Any = OneApproval(store)
        alice, olga, carol = person(), person("olga"), person("carol")
        bob, dan = (replace(person(name), groups=frozenset({"ops"})) for name in ("bob", "dan"))
        are = {
            ("hold", "h_1"): {"alice": Role.PERSON, "olga": Role.OWNER, "bob": Role.APPROVER, "dan": Role.APPROVER},
            ("approval", "a_1"): {"alice": Role.PERSON, "olga": Role.OWNER, "bob": Role.APPROVER},
            ("grant", "g_lent"): {"alice": Role.PERSON, "olga": Role.OWNER},
            ("agent", "lent"): {"olga": Role.OWNER},
            ("key", key(f"agent:{lent}").thumbprint): {"olga": Role.OWNER},
            ("key", key("user:carol").thumbprint): {"carol": Role.PERSON},
            ("person", "carol"): {"carol": Role.PERSON},
            ("approval", "a_2"): {},
            ("tool", "lent"): {},
        }
        for (kind, name), expected in are.items():
            for who in (alice, olga, carol, bob, dan):
                role = expected.get(who.name)
                found = await what_is(every, who, kind, name)  # type: ignore[arg-type]
                assert found == (frozenset() if role is None else {role}), (kind, name, who.name)
    finally:
        await store.aclose()


def test_a_witness_of_which_a_byte_was_torn_says_nothing(tmp_path: Path) -> None:
    witness, mark = Witness(tmp_path / "store.db"), Mark(epoch=1, sequence=7, hash=b"h" * 32)
    witness.make(mark)
    witness.close()
    whole = witness.path.read_bytes()
    assert witness.read() == mark
    for at in range(len(whole)):
        witness.path.write_bytes(bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]))
        assert witness.read() is None
    witness.path.unlink()
    (tmp_path / "elsewhere").write_bytes(b"keep")
    witness.path.symlink_to(tmp_path / "elsewhere")
    witness.say(mark)
    witness.close()
    assert (tmp_path / "elsewhere").read_bytes() == b"keep"
