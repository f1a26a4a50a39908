"""AuthZEN over HTTP: what is asked, where, and what counts of a decision."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from mcp_authz import limits
from mcp_authz.errors import PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.authzen import AuthZenEngine, evaluation_request
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.policy.remote import Pdp
from tests.policy.decision_points import SOON, DecisionPointServer, answering, serving
from tests.policy.documents import approved, document

METADATA = "/.well-known/authzen-configuration"


async def says(told: Any) -> PolicyAnswer:
    """What the adapter makes of a decision point without metadata that says this."""
    async with answering(told) as server:
        return await ask(AuthZenEngine(server.base, SOON))


async def ask(engine: AuthZenEngine) -> PolicyAnswer:
    """What it answers to a plain call; it is not used again."""
    answer = await engine.evaluate(document())
    await engine.aclose()
    return answer


def test_the_document_stands_in_the_four_entities_of_the_standard() -> None:
    told = document(approval=approved("destructive"), arguments={"draft": None, "title": "x"})
    told["resource"]["reviewer"] = None

    assert evaluation_request(told) == {
        "subject": {
            "type": "agent",
            "id": "coder",
            "properties": {"key": "k1", "labels": {"environment": "staging"}, "roles": ["coder"], "proof": "dpop"},
        },
        "action": {
            "name": "pr.create",
            "properties": {"method": "tools/call", "arguments": {"draft": None, "title": "x"}},
        },
        "resource": {
            "type": "tool",
            "id": "github__create_pull_request",
            "properties": {"server": "github", "environment": "staging", "hazard": "write", "repo": "acme/api"},
        },
        "context": {
            "chain": told["chain"],
            "on_behalf_of": {"user_id": "alice", "groups": ["web"]},
            "session": told["session"],
            "scope": ["pr:write:draft"],
            "approval": told["approval"],
            "time": told["time"],
        },
    }


def test_a_call_of_nobody_has_no_person_and_unknown_labels_are_not_empty_ones() -> None:
    chain = [{"type": "agent", "id": "coder", "labels": None, "scope": []}]

    context = evaluation_request(document(on_behalf_of=None, session=None, chain=chain))["context"]

    assert context.keys() == {"chain", "scope", "time"}
    assert context["chain"] == [{"type": "agent", "id": "coder", "scope": []}]


@pytest.mark.parametrize("missing", ["actor", "resource", "arguments", "chain", "approval"])
async def test_an_input_that_lacks_something_is_a_denial(missing: str) -> None:
    incomplete = document()
    del incomplete[missing]
    async with answering({"decision": True}) as server:
        engine = AuthZenEngine(server.base, SOON)
        assert (await engine.evaluate(incomplete)).errors
        await engine.aclose()


async def test_a_decision_counts_and_so_do_the_rules_and_obligations_in_our_form() -> None:
    assert await says({"decision": True}) == PolicyAnswer(permit=True, because=())
    assert await says({"decision": False}) == PolicyAnswer(permit=False, because=())
    context = {
        "because": ["a"],
        "obligations": [{"kind": "approval", "argument": "destructive"}],
        "policy": "v7",
        "reason_admin": {"403": "policy C076E82F"},
        "metadata": {"response_time": 60},
    }
    assert await says({"decision": True, "context": context, "evaluation_id": "3"}) == PolicyAnswer(
        permit=True,
        because=(RuleId("a"),),
        obligations=(Obligation(kind="approval", argument="destructive"),),
        revision="v7",
    )


async def test_a_denial_that_says_how_it_could_be_met_is_a_denial() -> None:
    told = {"decision": False, "context": {"acr_values": "urn:com:example:loa:3", "because": ["too-weak"]}}
    assert await says(told) == PolicyAnswer(permit=False, because=(RuleId("too-weak"),))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"decision": None},
        {"decision": "true"},
        {"decision": 1},
        {"decision": [True]},
        {"evaluations": [{"decision": True}]},
        {"decision": True, "context": None},
        {"decision": True, "context": [1]},
        {"decision": True, "context": {"obligations": [{"id": "log"}]}},
        {"decision": True, "context": {"because": "a"}},
        {"decision": True, "context": {"advice": []}},
        {"decision": True, "context": {"Obligations": []}},
    ],
)
async def test_anything_else_is_an_error_and_denies(told: Any) -> None:
    answer = await says(told)
    assert (answer.permit, answer.because, answer.obligations, len(answer.errors)) == (False, (), (), 1)


async def test_a_decision_point_without_metadata_is_asked_at_the_default_path() -> None:
    async with answering({"decision": True}) as server:
        engine = AuthZenEngine(f"{server.base}/tenant1", SOON)
        for _ in range(3):
            assert (await engine.evaluate(document())).permit
        await engine.aclose()
    assert server.requests == [f"{METADATA}/tenant1", *["/tenant1/access/v1/evaluation"] * 3]
    assert server.asked[0] == evaluation_request(document())


def publishing(**metadata: Any) -> Any:
    """A decision point with metadata, in which `BASE` is where it is."""

    async def answer(server: DecisionPointServer, request: web.Request) -> web.Response:
        if request.path.startswith(METADATA):
            written = {name: value.replace("BASE", server.base) for name, value in metadata.items()}
            return web.json_response(written)
        echoed = {"x-request-id": request.headers["x-request-id"]}
        return web.json_response({"decision": request.path == "/elsewhere/v1"}, headers=echoed)

    return serving(answer)


async def test_its_metadata_say_where_it_is_asked_for_an_hour() -> None:
    now = [0.0]
    async with publishing(
        policy_decision_point="BASE", access_evaluation_endpoint="BASE/elsewhere/v1", unknown="x"
    ) as server:
        engine = AuthZenEngine(server.base, SOON, ticks=lambda: now[0])
        for passed in (0.0, limits.PDP_METADATA_KEPT.total_seconds() - 1, 1.0):
            now[0] += passed
            assert (await engine.evaluate(document())).permit
        await engine.aclose()
    assert [path == METADATA for path in server.requests] == [True, False, False, True, False]


@pytest.mark.parametrize(
    "metadata",
    [
        {"access_evaluation_endpoint": "BASE/elsewhere/v1"},
        {"policy_decision_point": "https://other.example", "access_evaluation_endpoint": "BASE/elsewhere/v1"},
        {"policy_decision_point": "BASE/tenant1", "access_evaluation_endpoint": "BASE/elsewhere/v1"},
        {"policy_decision_point": "BASE"},
        {"policy_decision_point": "BASE", "access_evaluation_endpoint": "https://other.example/access/v1/evaluation"},
        {"policy_decision_point": "BASE", "access_evaluation_endpoint": "BASE.other.example/access/v1/evaluation"},
        {"policy_decision_point": "BASE", "access_evaluation_endpoint": "BASE@other.example/access/v1/evaluation"},
    ],
)
async def test_metadata_of_another_or_that_lead_to_another_are_an_error(metadata: dict[str, str]) -> None:
    async with publishing(**metadata) as server:
        pdp = Pdp(timeout=SOON.timeout, token="s3cret")
        (error,) = (await ask(AuthZenEngine(server.base, pdp))).errors
    assert "its metadata" in error
    assert server.requests == [METADATA]


async def test_metadata_that_cannot_be_had_now_are_an_error_and_asked_for_again() -> None:
    async def answer(server: DecisionPointServer, request: web.Request) -> web.Response:
        if len(server.requests) == 1:
            return web.json_response({}, status=500)
        return web.json_response({"decision": True}, status=404 if request.method == "GET" else 200)

    async with serving(answer) as server:
        engine = AuthZenEngine(server.base, SOON)
        assert "of its metadata: answered with HTTP 500" in (await engine.evaluate(document())).errors[0]
        assert (await engine.evaluate(document())).permit
        await engine.aclose()


@pytest.mark.parametrize(
    "url",
    ["http://pdp.example.com", "authzen+http://pdp.example.com", "pdp.example.com", "https://p?x=1", "https://a:b@p"],
)
def test_a_url_that_may_not_be_asked_is_refused_when_it_is_read(url: str) -> None:
    with pytest.raises(PolicyError):
        AuthZenEngine(url, Pdp())


def test_the_digest_says_who_is_asked() -> None:
    one, again = AuthZenEngine("https://p.example", Pdp()), AuthZenEngine("authzen+https://p.example", Pdp())
    assert one.digest == again.digest != AuthZenEngine("https://q.example", Pdp()).digest
