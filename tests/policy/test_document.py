"""The input document of a call, and that the page about it tells the truth."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.model import Approval, Assurance, Classification, Hazard, HoldId, Tool, ToolCall, ToolName
from mcp_authz.policy.document import policy_input, rfc3339
from mcp_authz.principals import (
    AccessToken,
    Agent,
    AgentName,
    Authentication,
    Caller,
    Chain,
    Grant,
    GrantId,
    Link,
    LinkId,
    Mode,
    Person,
    PersonName,
    Proof,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.scope import Scope, ScopeTemplate
from tests.policy import documents

PAGE = Path(__file__).parents[2] / "docs" / "policy-input.md"
HOPS = "## When an agent delegates\n"  # what follows is about steps, what is before it about calls
AT = datetime(2026, 10, 19, 9, 30, tzinfo=UTC)
LATER = AT + timedelta(minutes=30)
CODER, PLANNER, ALICE = AgentName("coder"), AgentName("planner"), PersonName("alice")
SESSION, GRANT = SessionId("s_1"), GrantId("g_1")


def agent(name: AgentName) -> Agent:
    return Agent(name=name, owner=PersonName("olga"), labels={"team": f"team of {name}"}, roles=frozenset("ba"))


def link(number: int, holder: AgentName, *scope: str) -> Link:
    return Link(
        id=LinkId(f"l_{number}"),
        session=SESSION,
        parent=LinkId(f"l_{number - 1}") if number else None,
        holder=holder,
        scope=frozenset(Scope(word) for word in scope),
        tools=None,
        depth=number,
        max_depth=2,
        issued_at=AT,
        expires_at=LATER,
    )


def token(session: SessionId | None) -> AccessToken:
    return AccessToken(
        id="t",
        client_id="coder",
        actor=CODER,
        key=Thumbprint("k1"),
        subject="user:alice" if session else "agent:coder",
        session=session,
        link=LinkId("l_1") if session else None,
        scope=frozenset({Scope("pr:write:draft")}),
        issued_at=AT,
        expires_at=LATER,
    )


def for_alice() -> Caller:
    return Caller(
        agent=agent(CODER),
        key=Thumbprint("k1"),
        proof=Proof.DPOP,
        token=token(SESSION),
        person=Person(name=ALICE, groups=frozenset({"web", "dev"})),
        grant=Grant(
            id=GRANT,
            subject=ALICE,
            agent=PLANNER,
            scope=frozenset({Scope("pr:write")}),
            tools=None,
            granted_at=AT,
            expires_at=LATER,
        ),
        session=Session(
            id=SESSION,
            grant=GRANT,
            subject=ALICE,
            agent=PLANNER,
            mode=Mode.DELEGATED,
            purpose="fix issue 41",
            started_at=AT,
            expires_at=LATER,
            last_used_at=AT,
            calls_made=2,
        ),
        chain=Chain(links=(link(0, PLANNER, "pr:write"), link(1, CODER, "pr:write:draft"))),
    )


def call(**arguments: Any) -> ToolCall:
    classification = Classification(
        action="pr.create", hazard=Hazard.WRITE, scopes=(ScopeTemplate.parse("pr:write:draft"),)
    )
    tool = Tool(
        name=ToolName("github__create_pull_request"),
        server="github",
        tool="create_pull_request",
        environment="staging",
        definition={},
        digest=b"",
        classification=classification,
    )
    return ToolCall(tool=tool, arguments=arguments)


def made(caller: Caller | None = None, approval: Approval | None = None, **resource: Any) -> dict[str, Any]:
    return policy_input(
        caller=caller or for_alice(),
        call=call(draft=True),
        scope={Scope("pr:write:draft"), Scope("pr:read")},
        resource=resource,
        approval=approval,
        at=AT,
        agents={PLANNER: agent(PLANNER)},
    )


APPROVAL = Approval(
    hold=HoldId("h_1"), rules=("destructive", "two-eyes"), assurance=Assurance.SIGNED_IN, by=(ALICE,), approved_at=AT
)


def test_the_document_says_who_for_whom_through_whom_what_and_why() -> None:
    assert made(approval=APPROVAL, repo="acme/api") == {
        "actor": {
            "type": "agent",
            "id": "coder",
            "key": "k1",
            "labels": {"team": "team of coder"},
            "roles": ["a", "b"],
            "proof": "dpop",
        },
        "chain": [
            {"type": "agent", "id": "coder", "labels": {"team": "team of coder"}, "scope": ["pr:write:draft"]},
            {"type": "agent", "id": "planner", "labels": {"team": "team of planner"}, "scope": ["pr:write"]},
        ],
        "on_behalf_of": {"user_id": "alice", "issuer": None, "groups": ["dev", "web"], "auth": None},
        "session": {
            "id": "s_1",
            "purpose": "fix issue 41",
            "mode": "delegated",
            "started_at": "2026-10-19T09:30:00.000Z",
            "expires_at": "2026-10-19T10:00:00.000Z",
            "calls_made": 2,
        },
        "action": "pr.create",
        "method": "tools/call",
        "resource": {
            "server": "github",
            "tool": "github__create_pull_request",
            "environment": "staging",
            "hazard": "write",
            "repo": "acme/api",
        },
        "arguments": {"draft": True},
        "scope": ["pr:read", "pr:write:draft"],
        "approval": {
            "rule": "destructive",
            "rules": ["destructive", "two-eyes"],
            "assurance": "signed-in",
            "approved_at": "2026-10-19T09:30:00.000Z",
        },
        "time": "2026-10-19T09:30:00.000Z",
    }


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(made(approval=APPROVAL))) == made(approval=APPROVAL)


def test_an_agent_in_its_own_name_stands_alone() -> None:
    document = made(Caller(agent=agent(CODER), key=Thumbprint("k1"), proof=Proof.BEARER, token=token(None)))

    assert (document["on_behalf_of"], document["session"], document["approval"]) == (None, None, None)
    assert [step["id"] for step in document["chain"]] == ["coder"]


def test_labels_of_an_agent_that_is_not_known_are_null_and_not_empty() -> None:
    document = policy_input(caller=for_alice(), call=call(), scope=(), resource={}, approval=None, at=AT)

    assert [step["labels"] for step in document["chain"]] == [{"team": "team of coder"}, None]


def signed_in(shown: Authentication | None) -> Caller:
    """The coder for alice, who agreed when she had signed in like this."""
    caller = for_alice()
    assert caller.grant is not None
    return replace(caller, grant=replace(caller.grant, authentication=shown))


SHOWN = Authentication(at=AT - timedelta(minutes=4), amr=("mfa", "hwk"), issuer="https://login.example.com")


def test_the_document_says_how_and_when_the_person_had_signed_in_when_they_agreed() -> None:
    person = made(signed_in(SHOWN))["on_behalf_of"]
    assert person["issuer"] == "https://login.example.com"
    assert person["auth"] == {"amr": ["mfa", "hwk"], "at": "2026-10-19T09:26:00.000Z"}
    assert made(signed_in(replace(SHOWN, issuer=None)))["on_behalf_of"]["issuer"] is None


@pytest.mark.parametrize(
    ("condition", "shown", "true"),
    [
        ('auth.amr.contains("hwk")', SHOWN, True),
        ('auth.amr.contains("mfa")', SHOWN, True),
        ('auth.amr.contains("mfa")', replace(SHOWN, amr=("pwd",)), False),
        ('auth.amr.contains("mfa")', None, False),
        ('auth.at > datetime("2026-10-19T09:25:00Z")', SHOWN, True),
        ('auth.at > datetime("2026-10-19T09:27:00Z")', SHOWN, False),
    ],
)
async def test_a_policy_can_demand_how_and_when_the_person_signed_in(
    condition: str, shown: Authentication | None, true: bool
) -> None:
    asked = f"context has on_behalf_of.auth && context.on_behalf_of.{condition}"
    assert await documents.holds(asked, made(signed_in(shown))) is true


async def test_a_client_agent_has_no_key_and_a_policy_can_tell() -> None:
    assert await documents.holds("principal has key", made())
    assert not await documents.holds("principal has key", made(replace(for_alice(), key=None)))


@pytest.mark.parametrize("name", ["server", "tool", "environment", "hazard"])
def test_no_argument_passes_for_what_the_operator_says_of_the_tool(name: str) -> None:
    assert made(**{name: "read"})["resource"] == made()["resource"]


def test_a_time_has_one_spelling() -> None:
    east = datetime(2026, 10, 19, 11, 30, tzinfo=timezone(timedelta(hours=2)))

    assert rfc3339(east) == rfc3339(AT) == "2026-10-19T09:30:00.000Z"


def leaves(value: Any, path: str = "") -> set[str]:
    """The paths of a document, `[]` for the items of a list."""
    if isinstance(value, dict):
        return {found for name, inner in value.items() for found in {f"{path}{name}"} | leaves(inner, f"{path}{name}.")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return leaves(value[0], f"{path.removesuffix('.')}[].")
    return set()


def test_the_page_lists_exactly_the_fields_of_the_document() -> None:
    calls, _ = PAGE.read_text("utf-8").split(HOPS)
    rows = set(re.findall(r"^\| `([^`]+)` \|", calls, re.M))
    document = made(approval=APPROVAL)
    document["on_behalf_of"]["auth"] = {"amr": ["webauthn"], "at": "2026-10-19T09:00:00.000Z"}
    for free in (document["actor"]["labels"], document["arguments"], *(step["labels"] for step in document["chain"])):
        free.clear()

    assert rows == leaves(document)


@pytest.mark.parametrize("part", [0, 1])
async def test_every_cedar_expression_on_the_page_is_true_of_the_document_beside_it(part: int) -> None:
    text = PAGE.read_text("utf-8").split(HOPS)[part]
    example = re.search(r"```json\n(.*?)```", text, re.S)
    expressions = re.findall(r"^\| `[^`]+` \| [^|]* \| `([^`]+)` \|$", text, re.M)

    assert example is not None
    assert len(expressions) > 12
    for expression in expressions:
        assert await documents.holds(expression, json.loads(example[1])), expression
