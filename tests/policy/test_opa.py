"""OPA over HTTP: the Data API of a server that evaluates real Rego, and of OPA itself where there is one."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from aiohttp import web

from mcp_authz.errors import PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.cases import judge
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.policy.opa import OpaEngine
from mcp_authz.policy.remote import Pdp
from tests.policy.decision_points import SOON, DecisionPointServer, answering, opa, rego, says, serving
from tests.policy.documents import document
from tests.policy.test_decision_tables import POLICIES, table_of

CODE_REVIEWER = (POLICIES / "code_reviewer.rego").read_text("utf-8")
DENIED = PolicyAnswer(permit=False, because=())


def first_case() -> dict[str, Any]:
    """A call that the policy permits which knows nothing of the gateway."""
    table = table_of("code_reviewer")
    assert table.cases[0].expected.verdict == "permit"
    return table.cases[0].document(table.base)


async def answers_its_table(engine: OpaEngine, policy: str) -> None:
    """The engine answers as the Cedar policy of this name; what Cedar cannot read at all may only be false here."""
    judged = await judge(table_of(policy), engine, names_rules=policy != "code_reviewer")
    wrong = [one.case.name for one in judged if set(one.differences) - {"error"} or one.errors]
    assert wrong == []
    assert {one.got.verdict for one in judged} >= {"permit", "deny"}


def in_rego() -> list[Any]:
    """Each policy that comes in Rego: its name, and its text."""
    return [pytest.param(path.stem, path.read_text("utf-8"), id=path.stem) for path in sorted(POLICIES.glob("*.rego"))]


@pytest.mark.parametrize(("name", "policy"), in_rego())
async def test_a_policy_in_rego_answers_as_its_cedar_twin(name: str, policy: str) -> None:
    package = re.search(r"^package (\S+)", policy, re.M)
    assert package is not None
    rule = "decision" if "decision :=" in policy else "allow"
    async with (
        rego(policy) as server,
        opa(server.base, path=f"/v1/data/{package[1].replace('.', '/')}/{rule}") as engine,
    ):
        await answers_its_table(engine, name)
        table = table_of(name)
        assert server.asked == [{"input": case.document(table.base)} for case in table.cases]


@pytest.mark.skipif("OPA_URL" not in os.environ, reason="OPA_URL names no OPA that has policies/code_reviewer.rego")
async def test_opa_itself_answers_as_the_cedar_twin() -> None:
    async with opa(os.environ["OPA_URL"].rstrip("/")) as engine:
        await answers_its_table(engine, "code_reviewer")


async def test_a_whole_package_can_be_asked_when_it_has_nothing_but_the_decision() -> None:
    permitted = first_case()
    async with rego(CODE_REVIEWER) as server, opa(server.base, path="/v1/data/agent/authz") as engine:
        assert (await engine.evaluate(permitted)).permit
        assert await engine.evaluate({**permitted, "action": "pr.merge"}) == DENIED


RULES = """package agent.authz

default decision = {"allow": false, "because": ["nothing-permits"]}

decision = {"allow": true, "because": ["deploys"], "obligations": [{"kind": "approval", "argument": "destructive"}]} {
  input.action == "deploy.create"
}
"""


async def test_a_decision_object_carries_rules_and_obligations() -> None:
    async with rego(RULES) as server, opa(server.base, path="/v1/data/agent/authz/decision") as engine:
        asked = Obligation(kind="approval", argument="destructive")
        permitted = PolicyAnswer(permit=True, because=(RuleId("deploys"),), obligations=(asked,))
        assert await engine.evaluate(document(action="deploy.create")) == permitted
        denied = PolicyAnswer(permit=False, because=(RuleId("nothing-permits"),))
        assert await engine.evaluate(document()) == denied


async def test_a_rule_that_is_undefined_is_a_denial_by_silence() -> None:
    policy = CODE_REVIEWER.replace("default allow = false", "")
    async with rego(policy) as server:
        async with opa(server.base) as engine:
            assert await engine.evaluate(document()) == DENIED
        async with opa(server.base, path="/v1/data/no/such/rule") as engine:
            assert await engine.evaluate(document()) == DENIED


async def test_an_answer_names_the_revision_that_opa_says_it_has_loaded() -> None:
    permitted = first_case()
    async with rego(CODE_REVIEWER, revision="2026-10-19T09:00Z/4f1c") as server, opa(server.base) as engine:
        assert (await engine.evaluate(permitted)).revision == "authz@2026-10-19T09:00Z/4f1c"
    named = {"allow": True, "policy": "sha256:4f1c"}
    assert (await says(named)).revision == "sha256:4f1c"


@pytest.mark.parametrize(
    "provenance",
    [None, [], {}, {"bundles": 3}, {"bundles": {"a": None, "b c": {"revision": "x"}, "d": {"revision": "has space"}}}],
)
async def test_what_opa_says_of_itself_in_another_way_is_no_revision_and_no_error(provenance: Any) -> None:
    async with answering({"result": True, "provenance": provenance}) as server, opa(server.base) as engine:
        assert await engine.evaluate(document()) == PolicyAnswer(permit=True, because=())


WRONG = [
    None,
    1,
    0,
    "true",
    [],
    [True],
    {"allow": "true"},
    {"allow": 1},
    {"allow": None},
    {"allow": True, "obligation": []},
    {"allow": True, "helper": True},
    {"allow": True, "because": "a-rule"},
    {"allow": True, "because": [""]},
    {"allow": True, "because": ["a rule"]},
    {"allow": True, "because": [1]},
    {"allow": True, "because": ["x" * 129]},
    {"allow": True, "because": [f"r{n}" for n in range(65)]},
    {"allow": True, "obligations": {"kind": "approval", "argument": "x"}},
    {"allow": True, "obligations": ["approval"]},
    {"allow": True, "obligations": [{}]},
    {"allow": True, "obligations": [{"kind": "approval", "argument": 1}]},
    {"allow": True, "obligations": [{"kind": "approval", "argument": None}]},
    {"allow": True, "obligations": [{"kind": "Approval"}]},
    {"allow": True, "obligations": [{"kind": "approval", "rule": "x"}]},
    {"allow": True, "obligations": [{"kind": "approval", "argument": "x" * 257}]},
    {"allow": True, "obligations": [{"kind": "approval", "argument": "a\u202eb"}]},
    {"allow": True, "obligations": [{"kind": "approval", "argument": str(n)} for n in range(17)]},
    {"allow": True, "policy": 3},
    {"allow": True, "policy": "two words"},
    {"allow": False, "obligations": [3]},
]


async def test_a_result_of_another_shape_is_an_error_and_denies() -> None:
    async def answer(server: DecisionPointServer, _: web.Request) -> web.Response:
        return web.json_response({"result": WRONG[len(server.asked) - 1]})

    async with serving(answer) as server, opa(server.base) as engine:
        for value in WRONG:
            told = await engine.evaluate(document())
            assert (told.permit, told.because, told.obligations, len(told.errors)) == (False, (), (), 1), value


async def test_a_denial_has_no_obligations_and_a_rule_counts_once() -> None:
    told = await says({"allow": False, "because": ["b", "a", "b"], "obligations": [{"kind": "notify"}]})
    assert told == PolicyAnswer(permit=False, because=(RuleId("b"), RuleId("a")))


async def test_the_credential_goes_along_and_is_shown_nowhere() -> None:
    pdp = Pdp(timeout=SOON.timeout, token="s3cret-token")
    async with answering({"result": True}) as server, opa(server.base, pdp) as engine:
        await engine.evaluate(document())
        assert server.headers[0]["Authorization"] == "Bearer s3cret-token"
    assert "s3cret" not in repr(pdp)
    async with answering({"code": "unauthorized"}, status=401) as server, opa(server.base, pdp) as engine:
        (error,) = (await engine.evaluate(document())).errors
        assert "look at `pdp.token_file`" in error
        assert "s3cret" not in error


@pytest.mark.parametrize("token", ["", "two words", "line\r\nx-other: 1", "schlüssel"])
def test_a_token_that_cannot_be_shown_is_refused_when_it_is_read(token: str) -> None:
    with pytest.raises(PolicyError, match="its token is empty, or has") as refused:
        OpaEngine("https://opa.example/v1/data/a", Pdp(token=token))
    assert not token or token not in str(refused.value)


async def test_a_call_with_large_arguments_is_asked_about_whole() -> None:
    async with answering({"result": True}) as server, opa(server.base) as engine:
        assert (await engine.evaluate(document(arguments={"content": "x" * 3_000_000}))).permit
        assert len(server.asked[0]["input"]["arguments"]["content"]) == 3_000_000


def test_the_digest_says_who_is_asked() -> None:
    one, again = (
        OpaEngine("https://opa.example/v1/data/a", Pdp()),
        OpaEngine("opa+https://opa.example/v1/data/a", Pdp()),
    )
    assert one.digest == again.digest
    assert len(one.digest) == 64
    assert one.digest != OpaEngine("https://opa.example/v1/data/b", Pdp()).digest


@pytest.mark.parametrize(
    "url",
    [
        "opa.example/v1/data/a",
        "ftp://opa.example/v1/data/a",
        "https:///v1/data/a",
        "https://opa.example",
        "https://opa.example/v1/data/",
        "https://opa.example/v1/data",
        "https://opa.example/v0/data/a",
        "https://user:pass@opa.example/v1/data/a",
        "https://opa.example/v1/data/a?explain=full",
        "https://opa.example/v1/data/a#b",
        "https://opa.example:port/v1/data/a",
        "http://opa.example/v1/data/a",
        "https://opa.example/v1/data/a b",
        "https://opa.example/v1/data/a\nb",
        "https://opä.example/v1/data/a",
        "authzen+https://opa.example/v1/data/a",
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_when_it_is_read(url: str) -> None:
    with pytest.raises(PolicyError) as refused:
        OpaEngine(url, Pdp())
    assert "user:pass" not in str(refused.value)


@pytest.mark.parametrize("url", ["opa+http://opa.internal:8181/v1/data/a", "http://localhost:8181/v1/data/a/b"])
def test_plain_http_is_for_this_computer_or_the_operators_word(url: str) -> None:
    OpaEngine(url, Pdp())
