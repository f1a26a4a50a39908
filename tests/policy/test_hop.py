"""Policy at every hop: one question per delegation step, with the document of calls and the action `delegate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.config import parse_config
from mcp_authz.delegating import Asked, Delegations, Source
from mcp_authz.errors import ConfigError, DelegationError, PolicyError
from mcp_authz.hop import Hop, PolicyAtHop, hop_input
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.policy.loading import load_engine
from mcp_authz.principals import Agent, AgentName, Authentication, Chain, PersonName, Thumbprint
from mcp_authz.rules.constraint import parse_tools
from tests.oauth.house import House, office
from tests.policy.test_document import AT, CODER, HOPS, PAGE, PLANNER, agent, for_alice, leaves, link

PERMIT = '@id("yes") permit (principal, action == Action::"delegate", resource);'


@dataclass(frozen=True)
class Answering:
    """An engine with one answer to everything."""

    answer: PolicyAnswer
    digest: str = ""

    async def evaluate(self, _document: PolicyInput) -> PolicyAnswer:
        return self.answer


def hop(**delegate: Any) -> Hop:
    caller = for_alice()
    assert caller.session is not None
    given = replace(
        link(1, CODER, "pr:write:draft"),
        tools=parse_tools({"github__create_pull_request": {}}),
        max_calls=20,
        expires_at=AT + timedelta(seconds=901),
        reason="the Python part",
    )
    return Hop(
        session=caller.session,
        person=caller.person,
        chain=Chain(links=(link(0, PLANNER, "pr:write"),)),
        holders={PLANNER: agent(PLANNER)},
        key=Thumbprint("k0"),
        delegate=replace(agent(CODER), **delegate),
        link=given,
        at=AT,
    )


async def answered(policy: str, asked: Hop | None = None) -> tuple[str, str] | None:
    """Code and detail of the denial of a step, if it is one."""
    denial = await PolicyAtHop(CedarEngine.load({"test.cedar": policy})).denial(asked or hop())
    return None if denial is None else (denial.code, denial.detail)


def test_the_document_of_a_step_says_who_gives_what_to_whom() -> None:
    document = hop_input(hop())

    assert document["actor"]["id"] == "planner" and document["actor"]["key"] == "k0"
    assert [step["id"] for step in document["chain"]] == ["planner"]
    assert (document["action"], document["method"], document["approval"]) == ("delegate", "delegate", None)
    assert document["resource"] == {
        "server": "authz",
        "tool": "authz__delegate",
        "environment": "gateway",
        "hazard": "write",
        "delegate": "coder",
        "delegate_owner": "olga",
        "delegate_labels": {"team": "team of coder"},
        "delegate_roles": ["a", "b"],
        "delegate_parent": None,
        "delegate_steps": 1,
        "delegate_minutes": 16,
    }
    assert document["arguments"] == {
        "to": "coder",
        "scope": ["pr:write:draft"],
        "tools": {"github__create_pull_request": {}},
        "expires_in": 901,
        "max_calls": 20,
        "depth": 1,
        "reason": "the Python part",
    }
    assert document["scope"] == ["pr:write:draft"]


def test_a_step_is_as_well_proved_as_its_link_is() -> None:
    by_hand, signed = hop(), replace(hop(), link=replace(hop().link, signed_by=Thumbprint("k0"), statement=b"s"))

    assert [hop_input(one)["actor"]["proof"] for one in (by_hand, signed)] == ["bearer", "signed"]


def test_a_step_without_a_person_says_so() -> None:
    assert hop_input(replace(hop(), person=None))["on_behalf_of"] is None


def test_the_page_lists_exactly_what_a_step_adds() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text("utf-8").split(HOPS)[1], re.M))
    document = hop_input(hop())
    document["resource"]["delegate_labels"].clear()
    document["arguments"]["tools"].clear()

    assert rows == leaves({name: document[name] for name in ("resource", "arguments")}) - {"resource", "arguments"}


async def test_a_permit_without_more_is_what_it_takes() -> None:
    assert await answered(PERMIT) is None


@pytest.mark.parametrize("action", ["pr.create", "delegate.other"])
async def test_a_policy_that_is_silent_denies_and_says_what_to_add(action: str) -> None:
    policy = f'@id("calls") permit (principal, action == Action::"{action}", resource);'
    code, detail = await answered(policy) or ("", "")

    assert code == "policy" and "no policy permits the action `delegate`" in detail and "docs/policy-input.md" in detail


async def test_what_cannot_be_decided_is_a_denial() -> None:
    wrong = '@id("odd") forbid (principal, action, resource) when { principal has key && principal.key == "k0" && '
    policy = wrong + "context.arguments has to && context.arguments.to < 3 };"

    assert await answered(PERMIT + policy) == (
        "policy_error",
        "policy `odd` could not be evaluated: a value is not what the policy takes it for",
    )


async def test_a_step_cannot_wait_for_an_approval() -> None:
    policy = '@id("ask") @approval("two-eyes") permit (principal, action, resource) when { context has approval };'
    code, detail = await answered(policy) or ("", "")

    assert code == "obligation" and "it asks for approval, and a delegation cannot wait" in detail


FRESH = '@id("fresh") @step_up("300") permit (principal, action == Action::"delegate", resource);'


async def test_a_step_is_made_for_a_person_who_signed_in_lately_and_nobody_is_sent_anywhere_for_it() -> None:
    lately = Authentication(at=AT - timedelta(seconds=300), amr=("hwk",))
    assert await answered(FRESH, replace(hop(), authentication=lately)) is None
    before = replace(lately, at=AT - timedelta(seconds=301))
    for shown in (before, None):
        code, _ = await answered(FRESH, replace(hop(), authentication=shown)) or ("", "")
        assert code == "stale_sign_in"
    code, _ = await answered(FRESH, replace(hop(), authentication=lately, person=None)) or ("", "")
    assert code == "stale_sign_in"


def test_a_step_says_how_the_person_had_signed_in() -> None:
    shown = Authentication(at=AT, amr=("hwk",), issuer="https://login.example.com")
    person = hop_input(replace(hop(), authentication=shown))["on_behalf_of"]
    assert person["auth"] == {"amr": ["hwk"], "at": "2026-10-19T09:30:00.000Z"}
    assert person["issuer"] == "https://login.example.com"


@pytest.mark.parametrize("kinds", [["redact"], ["approval", "notify"]])
async def test_an_obligation_of_any_kind_is_a_denial(kinds: Sequence[str]) -> None:
    asked = tuple(Obligation(kind=kind) for kind in kinds)
    denial = await PolicyAtHop(Answering(PolicyAnswer(permit=True, because=(), obligations=asked))).denial(hop())

    assert denial is not None and denial.code == "obligation"


async def test_an_engine_that_permits_with_an_error_is_not_believed() -> None:
    broken = PolicyAnswer(permit=True, because=(RuleId("yes"),), errors=("cedar came to no decision",))
    denial = await PolicyAtHop(Answering(broken)).denial(hop())

    assert denial is not None and denial.code == "policy_error"


STAGING = (
    '@id("staging") forbid (principal, action == Action::"delegate", resource) '
    "unless { resource has delegate_labels.environment && resource.delegate_labels.environment == "
    '"staging" };'
)


@pytest.mark.parametrize(
    ("labels", "permitted"), [({"environment": "staging"}, True), ({"environment": "production"}, False), ({}, False)]
)
async def test_policy_may_tell_delegates_apart_by_their_labels(labels: dict[str, str], permitted: bool) -> None:
    assert (await answered(PERMIT + STAGING, hop(labels=labels)) is None) is permitted


@pytest.mark.parametrize(
    "condition", ["resource.delegate_minutes == 1", "resource has delegate_steps && resource.delegate_steps == true"]
)
def test_a_rule_about_delegation_is_checked_when_it_is_loaded(condition: str) -> None:
    rule = f'@id("x") permit (principal, action == Action::"delegate", resource) when {{ {condition} }};'
    with pytest.raises(PolicyError):
        CedarEngine.load({"test.cedar": rule})


def test_the_action_delegate_is_known_where_the_actions_are() -> None:
    CedarEngine.load({"test.cedar": PERMIT}, actions={"pr.create"})


def test_no_tool_passes_for_a_delegation() -> None:
    tools = {"hand_over": {"action": "delegate"}}
    with pytest.raises(ConfigError, match="`delegate` is what policy calls a delegation"):
        parse_config({"servers": {"team": {"command": ["team"], "tools": tools}}})


async def _step(h: House, *policies: str) -> None:
    """The planner delegates to the coder under these policies, for alice."""
    _, coder, session, root = await h.family()
    config = parse_config({"policy": list(policies)})
    delegations = Delegations(store=h.store, clock=h.clock, policy=PolicyAtHop(load_engine(config, config.policy)))
    alice = await h.store.person(PersonName("alice"))
    source = Source(chain=Chain(links=(root,)), session=session, person=alice)
    await delegations.delegate(source, Asked(to=coder.name))


async def test_the_default_policy_lets_agents_delegate_for_people(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await _step(h, "builtin:scopes_and_hazard")
        assert len(await h.store.open_links(AgentName("coder"), h.clock())) == 1


async def test_a_denied_step_issues_nothing_and_is_recorded_with_the_rule_that_denied_it(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        with pytest.raises(DelegationError, match="nothing-is-permitted"):
            await _step(h, "builtin:scopes_and_hazard", "builtin:deny_all")
        assert await h.store.open_links(AgentName("coder"), h.clock()) == ()
        (fields,) = await h.events("delegation")
        assert (fields["decision"], fields["from"], fields["holder"]) == ("deny", "agent:planner", "agent:coder")
        assert "nothing-is-permitted" in fields["detail"]


def test_a_child_says_whose_it_is() -> None:
    child: Agent = replace(agent(AgentName("planner/worker-7")), parent=PLANNER)

    assert hop_input(replace(hop(), delegate=child))["resource"]["delegate_parent"] == "planner"
