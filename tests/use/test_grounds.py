"""What a call stands on, thing by thing: it ends with each of these, and with nothing beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcp_authz.grounds import Known, of_approval, of_chain
from mcp_authz.model import ApprovalRule, Assurance, HeldCall, StandingId
from mcp_authz.principals import AgentName, ClientId, GrantId, Mode, Person, PersonName, SessionId, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, b64url
from tests.store.world import ALICE, CODER, GRANT, PLANNER, SESSION, agent, held, link, person, root, session, verdict

KEY = PrivateKey.generate()
LINKS = (
    replace(root(), holder_key=Thumbprint("k_planner")),
    replace(link(), holder_key=Thumbprint("k_coder"), signed_by=Thumbprint("k_signed")),
)


def known(**clients: str) -> Known:
    ids = {name: ClientId(client) for name, client in clients.items()}
    return Known(
        agents={name: replace(agent(name), client=ids.get(name)) for name in (PLANNER, CODER)},
        sessions={SessionId(SESSION): session()},
        clients={GrantId(GRANT): ids.get("grant")},
    )


def test_a_link_stands_on_everything_above_it() -> None:
    names = of_chain(session(), LINKS, known(planner="c_planner", coder="c_coder", grant="c_grant")).names
    assert names == {
        "link": {"l_root", "l_leaf"},
        "session": {"s_1"},
        "grant": {"g_1"},
        "agent": {"planner", "coder"},
        "client": {"c_planner", "c_coder", "c_grant"},
        "key": {"k_planner", "k_coder", "k_signed"},
        "person": {"alice"},
    }


def test_an_agent_that_works_for_itself_stands_on_its_owner() -> None:
    own = replace(session(), subject=None, mode=Mode.OWN)
    owner = replace(agent(PLANNER), owner=PersonName("olga"))
    grounds = of_chain(own, LINKS[:1], replace(known(), agents={PLANNER: owner}))
    assert grounds.names["person"] == {"olga"}
    assert grounds.meet("person", {"olga"}) and not grounds.meet("person", {"alice"})
    assert not grounds.meet("tool", {"olga"})


def approved(*people: str, quorum: int, **changes: Any) -> tuple[HeldCall, dict[str, Person]]:
    rule = ApprovalRule(name="some", by=("group:developers",), quorum=quorum, assurance=Assurance.SIGNED_IN)
    verdicts = tuple(replace(verdict(by=name), signed_by=Thumbprint(f"k_{name}"), **changes) for name in people)
    return held(rules=(rule,), verdicts=verdicts), {name: person(name) for name in people}


@pytest.mark.parametrize(("quorum", "named"), [(2, {"bob", "carol"}), (1, set[str]())])
def test_an_approval_stands_on_everybody_whom_its_rules_cannot_spare(quorum: int, named: set[str]) -> None:
    grounds = of_approval(*approved("bob", "carol", quorum=quorum))
    assert grounds.names["person"] == named
    assert grounds.names["key"] == {"k_bob", "k_carol"}


def test_an_approval_stands_on_the_passkey_and_the_standing_approval_that_it_was_given_with() -> None:
    proof = {"type": "webauthn", "credential": b64url(b"credential")}
    statement = jose.sign({"sub": "user:bob", "proof": proof}, typ="approval+jwt", key=KEY)
    by = of_approval(*approved("bob", quorum=1, statement=statement, standing=StandingId("a_1"))).names
    assert by["passkey"] == {b64url(b"credential")} and by["approval"] == {"a_1"} and by["person"] == {"bob"}
    plain = of_approval(*approved("bob", quorum=1)).names
    assert not plain["passkey"] and not plain["approval"]


def test_who_said_no_is_nothing_that_an_approval_stands_on() -> None:
    call, people = approved("bob", quorum=1)
    no = replace(verdict(by="carol", approve=False), signed_by=Thumbprint("k_carol"), standing=StandingId("a_2"))
    names = of_approval(replace(call, verdicts=(*call.verdicts, no)), people).names
    assert names["key"] == {"k_bob"} and not names["approval"]


def test_grounds_of_two_things_are_those_of_both() -> None:
    both = of_chain(session(), LINKS, known()) | of_approval(*approved("bob", quorum=1))
    assert both.names["person"] == {str(ALICE), "bob"} and both.meet("key", {"k_bob"}) and both.meet("key", {"k_coder"})
    assert both.meet("agent", {str(AgentName("planner"))})
