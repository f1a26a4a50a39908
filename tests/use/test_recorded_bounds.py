"""What a record of a call has of what its caller and its tool server chose: names and digests, and bounded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.audit import Evidence, decided, outcome_event, what
from mcp_authz.errors import InputError
from mcp_authz.model import Classification, Deny, Hazard, RuleId, Tool, ToolCall, ToolName
from mcp_authz.principals import AccessToken, Caller, Chain, ClientId, Proof
from tests.store.world import ALICE, CODER, SESSION, START, agent, key, root, session

EVIDENCE = Evidence(b"k" * 32)


def call(names: list[str], **arguments: Any) -> ToolCall:
    tool = Tool(
        name=ToolName("acme__x"),
        server="acme",
        tool="x",
        environment="",
        definition={"inputSchema": {"properties": {name: {} for name in names}}},
        digest=b"d" * 32,
        classification=Classification(action="x.use", hazard=Hazard.READ, scopes=()),
    )
    return ToolCall(tool=tool, arguments=arguments)


def test_names_of_arguments_are_the_tools_own_as_many_as_fit_and_the_others_are_counted() -> None:
    long, secret = "a" * (limits.NAME + 1), "sk-made-up-by-the-caller"
    said = what(call(["path", long], path="/srv", **{long: 1, secret: 2}), {}, EVIDENCE)
    assert said["arguments"] == ["path", "(2 more)"] and "/srv" not in str(said) and secret not in str(said)
    many = [f"n{number:03}" for number in range(limits.NAMES_RECORDED + 5)]
    said = what(call(many, **dict.fromkeys(many, 1)), {}, EVIDENCE)
    assert said["arguments"] == [*many[: limits.NAMES_RECORDED], "(5 more)"]
    assert said["definition"] == (b"d" * 32).hex()
    assert what(call(["path"], path="/srv"), {}, EVIDENCE)["arguments_digest"] == EVIDENCE.digest({"path": "/srv"})


def test_values_are_shown_of_arguments_that_the_tool_names_and_of_no_others() -> None:
    shown = Evidence(b"k" * 32, values=lambda arguments, _: dict(arguments))
    said = what(call(["path"], path="/srv", made_up="secret"), {}, shown)
    assert said["argument_values"] == {"path": "/srv"} and "secret" not in str(said)
    assert "argument_values" not in what(call(["path"], made_up="secret"), {}, shown)


def test_attributes_of_a_resource_are_words_or_digests() -> None:
    long = "x" * 257
    said = what(call([]), {"repo": "acme/api", "n": 7, "long": long, "deep": {"a": 1}}, EVIDENCE)["resource"]
    assert (said["repo"], said["n"]) == ("acme/api", 7)
    assert said["long"] == f"digest:{EVIDENCE.digest(long)}" and said["deep"] == f"digest:{EVIDENCE.digest({'a': 1})}"


def test_why_a_call_was_denied_is_bounded() -> None:
    deny = Deny(code="policy", because=(RuleId("r"),), detail="x" * 10_000, max_age=timedelta(minutes=5))
    said = decided(deny, policy="p")
    assert len(said["detail"]) == limits.DETAIL_RECORDED and said["max_age"] == 300


def test_a_result_that_is_no_json_has_no_digest() -> None:
    with pytest.raises(InputError):
        EVIDENCE.digest_of_result({"value": float("nan")})
    assert EVIDENCE.digest_of_result({"b": 1.5, "a": 1}) == EVIDENCE.digest_of_result({"a": 1, "b": 1.5})


@pytest.mark.parametrize("has_session", [True, False])
def test_an_outcome_is_found_by_session_and_person_where_its_call_had_them(has_session: bool) -> None:
    holder = key("agent:coder").thumbprint
    token = AccessToken(
        id="t_1",
        client_id=ClientId("coder"),
        actor=CODER,
        key=holder,
        subject="user:alice",
        session=None,
        link=None,
        scope=frozenset(),
        issued_at=START,
        expires_at=START,
    )
    of: dict[str, Any] = {"session": session(), "chain": Chain(links=(root(),))} if has_session else {}
    caller = Caller(agent=agent(CODER), key=holder, proof=Proof.BEARER, token=token, **of)
    fields = outcome_event(
        "c_1", started=START, ended=START, outcome="done", caller=caller, call=call([]), result=None
    ).fields
    assert fields.get("subject") == (f"user:{ALICE}" if has_session else None)
    assert fields.get("session") == (SESSION if has_session else None)
