"""What is said of Cedar policies without an input: only what is certain, with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from mcp_authz.model import ApprovalRule, Classification, Hazard, Tool, ToolName
from mcp_authz.policy.cedar_source import policies_in
from mcp_authz.policy.lint import Finding, look_at
from mcp_authz.policy.lint_approval import look_at_approval
from mcp_authz.policy.lint_static import Around
from mcp_authz.rules.decision import ApprovalFloor

POLICIES = Path(__file__).parents[2] / "policies"


def tool(name: str, action: str, hazard: Hazard = Hazard.READ, *arguments: str) -> Tool:
    return Tool(
        name=ToolName(f"acme__{name}"),
        server="acme",
        tool=name,
        environment="staging",
        definition={"inputSchema": {"type": "object", "properties": {argument: {} for argument in arguments}}},
        digest=bytes(32),
        classification=Classification(action=action, hazard=hazard, scopes=()),
    )


TOOLS = (tool("list", "pr.list", Hazard.READ, "repo"), tool("merge", "pr.merge", Hazard.DESTRUCTIVE, "repo", "force"))
AROUND = Around(
    tools=TOOLS,
    actions=frozenset({"pr.list", "pr.merge"}),
    environments=frozenset({"staging"}),
    attributes=frozenset({"repo"}),
    agents=frozenset({"coder"}),
    labels=frozenset({"team"}),
    approvals=frozenset({"destructive"}),
    names={"budget": frozenset({"calls"}), "notify": frozenset(), "redact": frozenset()},
    people={},
)
ALL = '@id("all") permit (principal is Agent, action, resource is Tool);'


def policy(head: str = "", when: str = "", *, effect: str = "permit", id_: str = "it", more: str = "") -> str:
    scope = head or "principal is Agent, action, resource is Tool"
    return f'@id("{id_}")\n{more}\n{effect} ({scope}) {f"when {{ {when} }}" if when else ""};\n'


def found(text: str, around: Around = AROUND) -> list[Finding]:
    return list(look_at(policies_in({"p.cedar": text}), around))


def about(text: str, around: Around = AROUND) -> list[tuple[str, str]]:
    """What is said of the policy `it`, without its name."""
    said = [f for f in found(text + ALL, around) if f.text.startswith("`it`")]
    return [(f.severity, f.text.removeprefix("`it`: ")) for f in said]


LIST = 'principal is Agent, action == Action::"pr.list", resource is Tool'


@pytest.mark.parametrize(
    ("text", "severity", "said"),
    [
        (policy(LIST.replace("list", "lst")), "warning", "it never applies: no tool has the action `pr.lst`"),
        (
            policy('principal is Agent, action in [Action::"pr.list", Action::"x"], resource is Tool'),
            "warning",
            "no tool has the action `x`",
        ),
        (
            policy('principal == Agent::"codr", action, resource is Tool'),
            "warning",
            "it never applies: there is no agent `codr`",
        ),
        (
            policy('principal is Agent, action, resource == Tool::"acme__lst"'),
            "warning",
            "it never applies: there is no tool `acme__lst`",
        ),
        (policy(when='resource.hazard == "reed"'), "warning", "it never applies: `resource.hazard` is never `reed`"),
        (policy(when='["read", "wrte"].contains(resource.hazard)'), "warning", "`resource.hazard` is never `wrte`"),
        (policy(when='resource.environment == "prod"'), "warning", "it never applies: `resource.environment`"),
        (
            policy(when='context has session && context.session.mode == "delegate"'),
            "warning",
            "it never applies: `context.session.mode` is never",
        ),
        (
            policy(when='resource.server == "a" && resource.server == "b"'),
            "warning",
            "it never applies: two of its conditions",
        ),
        (policy(when="context has session && context has session"), "note", "stands there 2 times"),
        (policy(more='@aproval("destructive")'), "error", "there is no annotation `@aproval`"),
        (policy(more='@approval("two-people")'), "error", "there is no approval rule `two-people`"),
        (policy(more='@budget("money")'), "error", "the configuration has no [budgets.money]"),
        (policy(when='resource has ref && resource.ref == "x"'), "warning", "no tool's entry gives `resource.ref`"),
        (
            policy(when='principal.labels has tem && principal.labels.tem == "x"'),
            "note",
            "no agent has a label `tem`",
        ),
        (
            policy(LIST, "context.arguments has force && context.arguments.force == true"),
            "note",
            "lists an argument `force`",
        ),
        (policy() + policy(effect="forbid", id_="f"), "warning", "`f` (p.cedar:4) forbids whatever it permits"),
        (
            policy(LIST, 'resource.hazard == "read" && context has session')
            + policy(effect="forbid", id_="f", when='resource.hazard == "read"'),
            "warning",
            "`f` (p.cedar:4) forbids whatever it permits",
        ),
        (policy(LIST, id_="f") + policy(LIST), "warning", "it says the same as `f` (p.cedar:1)"),
    ],
)
def test_a_mistake_is_found(text: str, severity: str, said: str) -> None:
    assert any(kind == severity and said in words for kind, words in about(text)), about(text)


@pytest.mark.parametrize(
    "text",
    [
        policy(),
        policy(LIST, 'resource.hazard == "read" && context has session && context.session.mode == "delegated"'),
        policy('principal == Agent::"coder", action == Action::"delegate", resource is Tool'),
        policy(when='resource has delegate_labels.team && resource.delegate_labels.team == "x"'),
        policy(when='resource has repo && resource.repo == "x"', more='@budget("calls")'),
        policy(when='resource.hazard == "read" || resource.hazard == "reed"'),  # may apply all the same
        policy(when='principal.labels has team && principal.labels.team == "x"', more='@approval("destructive")'),
        # This forbid leaves room for the permit, and this permit for the forbid.
        policy() + policy(effect="forbid", id_="f", when='resource.hazard == "read"'),
        policy(LIST, "context has session") + policy(LIST, "context has on_behalf_of", effect="forbid", id_="f"),
        policy(LIST, id_="f", more='@approval("destructive")') + policy(LIST),
    ],
)
def test_what_is_no_mistake_is_not_found(text: str) -> None:
    assert about(text) == []


def denied(text: str, around: Around = AROUND) -> list[str]:
    return [f.text.split("`")[1] for f in found(text, around) if "always denied" in f.text]


def test_tools_that_no_permit_could_match_are_named() -> None:
    assert denied("") == ["acme__list", "acme__merge"]
    assert denied(ALL) == []
    assert denied(policy(LIST)) == ["acme__merge"]
    assert denied(policy(when='["read", "write"].contains(resource.hazard)')) == ["acme__merge"]
    assert denied(policy(when='resource.server == "acme" && context has session')) == []
    assert denied(policy('principal is Agent, action, resource == Tool::"acme__merge"')) == ["acme__list"]


def test_a_tool_of_which_every_call_is_forbidden_is_named_and_one_of_which_some_are_is_not() -> None:
    forbid = policy(LIST, effect="forbid", id_="f")
    assert denied(ALL + forbid) == ["acme__list"]
    assert denied(ALL + policy(LIST, 'resource.hazard == "read"', effect="forbid", id_="f")) == ["acme__list"]
    assert denied(ALL + policy(LIST, "context has session", effect="forbid", id_="f")) == []
    some = LIST.replace("principal is Agent", 'principal == Agent::"coder"')
    assert denied(ALL + policy(some, effect="forbid", id_="f")) == []


def test_what_rests_on_a_server_that_was_never_listed_is_a_note() -> None:
    unsure = replace(AROUND, unlisted=("other",))
    assert about(policy(LIST.replace("list", "lst")), unsure)[0][0] == "note"
    assert about(policy('principal is Agent, action, resource == Tool::"other__x"'), unsure) == []


def test_of_what_is_not_known_nothing_is_said() -> None:
    text = policy('principal == Agent::"a", action == Action::"b", resource == Tool::"c"', more='@approval("x")')
    assert found(text, Around()) == []


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.cedar")), ids=lambda path: path.stem)
def test_shipped_policies_have_no_mistakes_of_their_own(path: Path) -> None:
    assert [f for f in found(path.read_text(), Around()) if f.severity != "note"] == []


def test_every_policy_has_its_line_and_what_is_shown_of_a_condition_means_the_same() -> None:
    for path in POLICIES.glob("*.cedar"):
        lines = path.read_text().splitlines()
        for one in policies_in({path.name: path.read_text()}):
            assert one.line is not None and f'@id("{one.id}")' in lines[one.line - 1]
            for condition in (condition for condition in one.conditions if condition.kind == "when"):
                text = f"permit (principal, action, resource) when {{ {condition.text} }};"
                parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
                assert parsed["conditions"][0]["body"] == condition.body


def rules(*rules: ApprovalRule) -> ApprovalFloor:
    return ApprovalFloor(rules={rule.name: rule for rule in rules}, by_hazard={Hazard.DESTRUCTIVE: "destructive"})


@pytest.mark.parametrize(
    ("rule", "people", "unmet"),
    [
        ({"by": ("group:release",)}, {"bob": frozenset({"release"})}, False),
        ({"by": ("group:release",)}, {"bob": frozenset({"web"})}, True),
        ({"by": ("user:bob",), "quorum": 2}, {"bob": frozenset[str]()}, True),
        ({"by": ("user:bob", "group:web"), "quorum": 2}, {"bob": frozenset(), "eve": frozenset({"web"})}, False),
        ({"by": ("subject",)}, {}, False),
        ({"by": ("user:bob",)}, None, False),
    ],
)
def test_an_approval_rule_that_nobody_can_meet_is_named(rule: Any, people: Any, unmet: bool) -> None:
    said = list(look_at_approval(rules(ApprovalRule(name="destructive", **rule)), replace(AROUND, people=people)))
    assert any("nobody can meet it" in f.text for f in said) is unmet
    assert any(f.severity == "note" and "every destructive call waits" in f.text for f in said)
