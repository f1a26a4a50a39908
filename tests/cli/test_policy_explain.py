"""`mcp-authz policy explain`: it says what the gateway does, why, and what would change it; and it changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.agents import Agents, People
from mcp_authz.changing import Changes, change_agent
from mcp_authz.cli.explained import Told, view, word
from mcp_authz.cli.policy_explain import Who, told_of
from mcp_authz.cli.policy_recall import recalled
from mcp_authz.errors import NotFound
from mcp_authz.explaining import ROAD, STEP_OF, spent_by
from mcp_authz.installation import Installation, utc_now
from mcp_authz.model import Deny, Hold, Permit
from mcp_authz.principals import AgentName, Proof
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event, Pin
from tests.cli.desk import OPERATOR, Desk, settle
from tests.world import World, world

CONFIG = """
data_dir = "data"
policy = "builtin:incident"
notify = "none"

[servers.acme]
command = ["acme"]
environment = "acme"
[servers.acme.tools.list]
action = "pr.list"
hazard = "read"
scopes = ["pr:read:{repo}"]
[servers.acme.tools.deploy]
action = "deploy.create"
hazard = "destructive"
scopes = ["deploy:{environment}"]
resource = { deploy_environment = "{environment}" }
[servers.acme.tools.secret]
action = "secret.read"
hazard = "read"
scopes = ["secret:read"]
resource = { secret_environment = "{environment}" }
[servers.acme.tools.signed]
action = "pr.list"
hazard = "read"
scopes = ["secret:read"]
proof = "signed"

[approval.destructive]
by = ["group:release"]
quorum = 2
[approval.production-deploy]
by = ["user:bob"]
"""
SCOPES = "pr:read deploy:production secret:read"


def pin(name: str, *required: str) -> Pin:
    properties = {argument: {"type": "string"} for argument in required}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    definition = {"name": name, "description": name, "inputSchema": schema}
    return Pin(server="acme", tool=name, digest=definition_digest(definition), definition=definition, seen_at=utc_now())


async def staged(here: Installation) -> None:
    """Alice has let coder, a staging agent, do something; nobody has started anything."""
    pins = [pin("list", "repo"), pin("deploy", "environment"), pin("secret", "environment"), pin("signed")]
    await here.store.pin_first(pins, Event(kind="pin", at=utc_now()))
    await People(here.store, here.clock).add("alice", by=OPERATOR)
    await Agents(here.store, here.clock).add(
        "coder",
        owner="alice",
        key=PrivateKey.generate().public,
        ceiling=parse_scopes(SCOPES),
        labels={"environment": "staging"},
        by=OPERATOR,
    )


async def granted(here: Installation, scopes: str = SCOPES) -> None:
    await Sessions(here.store, here.clock).grant("alice", "coder", scope=parse_scopes(scopes), by=OPERATOR)


async def told(here: Installation, tool: str, /, proof: Proof | None = None, **arguments: Any) -> Told:
    agent = await here.store.agent(AgentName("coder"))
    assert agent is not None
    who = Who(agent=agent, person=None, session=None, proof=proof)
    return await told_of(here, who, f"acme__{tool}", arguments, here.clock)


def ended(told: Told) -> tuple[str, str]:
    """The step at which it ended, and how."""
    return next((step.name, step.result) for step in told.explanation.steps if step.result in ("failed", "held"))


def said(told: Told) -> str:
    return " ".join(remedy.text for remedy in told.remedies)


async def test_each_step_is_the_one_that_the_call_ends_at_and_the_remedy_is_about_it(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)

        nobody = await told(here, "list", repo="api")
        assert ended(nobody) == ("session", "failed") and "nobody has granted" in said(nobody)

        await granted(here)
        expected: dict[str, tuple[Told, str]] = {
            "tool": (await told(here, "nothing"), "no configured server has listed"),
            "proof": (await told(here, "signed", proof=Proof.DPOP), "signed by the agent's key"),
            "arguments": (await told(here, "list"), "other arguments"),
            "scopes": (
                await told(here, "deploy", environment="staging"),
                "ceiling of agent coder lacks deploy:staging",
            ),
            "policy": (await told(here, "secret", environment="production"), "policy has to say otherwise"),
        }
        for name, (one, remedy) in expected.items():
            assert ended(one) == (name, "failed") and remedy in said(one), name
        assert "the grant of alice" in said(expected["scopes"][0])

        held = await told(here, "deploy", environment="production")
        assert ended(held) == ("approval", "held")
        assert "rule destructive: 2 of group:release" in said(held) and "production-deploy: user:bob" in said(held)

        assert isinstance((await told(here, "list", repo="api")).explanation.decision, Permit)
        assert isinstance((await told(here, "signed")).explanation.decision, Permit)


async def test_the_steps_before_are_passed_and_those_after_are_not_reached(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)
        await granted(here)
        steps = (await told(here, "deploy", environment="staging")).explanation.steps
    results = [step.result for step in steps]
    assert [step.name for step in steps] == list(ROAD)
    at = results.index("failed")
    assert set(results[:at]) == {"passed", "assumed"} and set(results[at + 1 :]) == {"not reached"}


async def test_nothing_is_recorded_and_no_session_begins(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)
        await granted(here)
        before = await here.store.head()
        explained = await told(here, "deploy", environment="production")
        assert explained.explanation.begins and view(explained)["session"] is None
        assert await here.store.head() == before
        assert not await here.store.sessions() and not await here.store.holds()
        assert not await here.store.signing_keys("issuer")


async def test_a_spent_budget_is_found_though_only_the_last_step_takes_from_it(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)
        sessions = Sessions(here.store, here.clock)
        grant = await sessions.grant("alice", "coder", scope=parse_scopes(SCOPES), by=OPERATOR)
        await sessions.start(grant, purpose="p", max_calls=1, by=OPERATOR)
        one = await told(here, "list", repo="api")
        assert one.explanation.caller is not None and one.explanation.caller.session is not None
        spent = replace(one.explanation.caller.session, calls_made=1)
        assert spent_by(one.explanation.caller) is None
        assert "1 of 1 calls" in str(spent_by(replace(one.explanation.caller, session=spent)))


async def test_a_revoked_agent_ends_at_the_step_that_finds_it(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)
        await granted(here)
        await here.store.revoke("agent", "coder", Event(kind="revocation", at=utc_now(), fields={}))
        one = await told(here, "list", repo="api")
    name, result = ended(one)
    assert (name in ("sign-in", "standing"), result) == (True, "failed") and one.explanation.caller is None


async def test_it_is_shown_at_80_columns_with_the_rule_that_decides_and_the_next_command(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)
        await granted(here)
    call = ("policy", "explain", "--agent", "coder", "--tool")
    desk.path("args.json").write_text('{"environment": "production"}')
    forbidden = desk.ok(*call, "acme__secret", "--args", f"@{desk.path('args.json')}")
    words = " ".join(forbidden.split())
    assert "DENIED (policy) policy `staging-agents-never-read-production-secrets` (builtin:incident:6) forbids" in words
    assert 'while principal.labels.environment == "staging" and resource.secret_environment == "production"' in words
    assert "next: mcp-authz --config" in forbidden

    silent = " ".join(desk.ok(*call, "acme__secret", "--args", '{"environment": "prod"}').split())
    assert "no permit applies to it; the closest: policy `agents-read-secrets-of-their-own-environment`" in silent
    assert 'resource.secret_environment is "prod"' in silent
    assert max(len(line) for line in forbidden.splitlines() if not line.startswith("next:")) <= 80

    told = desk.json(*call, "acme__secret", "--args", '{"environment": "prod"}')
    assert (told["decision"], told["reason"], told["subject"]) == ("deny", "policy", "user:alice")
    assert [step["result"] for step in told["steps"] if step["step"] == "policy"] == ["failed"]
    assert told["input"]["resource"]["secret_environment"] == "prod"


async def test_in_a_chain_every_place_that_lacks_a_scope_is_named(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await here.store.pin_first([pin("deploy", "environment")], Event(kind="pin", at=utc_now()))
        cast = await settle(here)
        for agent in ("planner", "coder"):
            changes = Changes(ceiling=parse_scopes("files:read deploy"))
            await change_agent(here.store, here.clock, agent, changes, roles={}, by=OPERATOR)
        one = await told(here, "deploy", environment="staging")
    assert one.explanation.caller is not None and one.explanation.caller.chain is not None
    assert one.explanation.caller.chain.agents == ("planner", "coder")
    assert ended(one) == ("scopes", "failed")
    assert "the session of alice with planner lacks deploy:staging, and so does the grant of alice" in said(one)
    assert f"the delegation to coder ({cast.leaf.id}) lacks deploy:staging" in said(one)
    assert "ceiling" not in said(one)


async def test_an_agent_of_several_people_is_asked_about_one_by_name(desk: Desk) -> None:
    desk.configure(CONFIG)
    async with desk.open() as here:
        await staged(here)
        await People(here.store, here.clock).add("carol", by=OPERATOR)
        await granted(here)
        await Sessions(here.store, here.clock).grant("carol", "coder", scope=parse_scopes("pr:read"), by=OPERATOR)
        assert "--for alice or --for carol" in said(await told(here, "list", repo="api"))
        agent = await here.store.agent(AgentName("coder"))
        assert agent is not None
        for person, decision in (("alice", "permit"), ("carol", "permit")):
            who = Who(agent=agent, person=person, session=None, proof=None)
            one = await told_of(here, who, "acme__list", {"repo": "api"}, here.clock)
            assert (word(one.explanation.decision), view(one)["subject"]) == (decision, f"user:{person}")
        with pytest.raises(NotFound):
            await told_of(here, replace(who, person="nobody"), "acme__list", {"repo": "api"}, here.clock)


def test_what_cannot_be_explained_is_refused_with_what_to_say_instead(desk: Desk) -> None:
    assert desk.run("policy", "explain").code == 2
    assert "there is no agent `nobody`" in desk.refused("policy", "explain", "--agent", "nobody", "--tool", "t")
    done = desk.run("policy", "explain", "--agent", "nobody", "--tool", "t", "--args", "[1]")
    assert done.code == 2 and "expected a JSON object" in " ".join(re.sub("[│╭╮╰╯─]", " ", done.err).split())


DECIDED = {Permit: "permit", Hold: "hold", Deny: "deny"}


async def really(w: World, token: str, tool: str, arguments: Mapping[str, Any]) -> tuple[str, str | None]:
    """What the gateway does with the call, as it is on record."""
    await w.raw_call(token, tool, arguments)
    last = (await w.decisions())[-1]
    return str(last["decision"]), last.get("reason")


async def explained(w: World, name: str, tool: str, arguments: Mapping[str, Any]) -> tuple[str, str | None]:
    """What is said of the same call."""
    agent = await w.store.agent(AgentName(name))
    who = Who(agent=agent, person=None, session=None, proof=Proof.BEARER)
    decision = (await told_of(w.running.installation, who, tool, arguments, w.clock)).explanation.decision
    return DECIDED[type(decision)], decision.code if isinstance(decision, Deny) else None


CALLS: list[tuple[str, Mapping[str, Any]]] = [
    ("list_pull_requests", {"owner": "acme", "repo": "api"}),
    ("list_pull_requests", {"owner": "acme"}),
    ("list_pull_requests", {"owner": "acme/x", "repo": "api"}),
    ("open_pull_request", {"owner": "acme", "repo": "api", "title": "t", "branch": "b", "draft": False}),
    ("read_secret", {"environment": "production", "name": "db-password"}),
    ("deploy", {"owner": "acme", "repo": "api", "environment": "production", "version": "1"}),
    ("deploy", {"owner": "acme", "repo": "api", "environment": "staging", "version": "1"}),
    ("merge_pull_request", {"owner": "acme", "repo": "api", "number": 1}),
    ("list_deployments", {"owner": "acme", "repo": "api"}),
]


async def test_a_call_of_the_log_is_explained_by_its_record_and_its_input(tmp_path: Path) -> None:
    async with world(tmp_path, policy="builtin:incident") as w:
        coder = await w.ready("coder", "secret:read pr:read", labels={"environment": "staging"})
        token = await w.token(coder)
        for tool, arguments in (CALLS[4], CALLS[1]):
            await w.raw_call(token, f"acme__{tool}", arguments)
        forbidden, malformed = (str(record.event.call) for record in (await w.records("decision"))[-2:])

        here = w.running.installation
        one = await recalled(here, forbidden[:12])
        assert isinstance(one.decision, Deny) and (one.decision.code, one.same_policy) == ("policy", True)
        assert one.now is not None and word(one.now) == "deny"
        assert [r.policy.id for r in one.readings if r.applies] == ["staging-agents-never-read-production-secrets"]
        assert [step.name for step in one.steps if step.result == "failed"] == ["policy"]

        other = replace(here, config=here.config.model_copy(update={"policy": ("builtin:scopes_and_hazard",)}))
        again = await recalled(other, forbidden)
        assert again.now is not None and (again.same_policy, word(again.now)) == (False, "permit")

        unasked = await recalled(here, malformed)
        assert unasked.now is None and [s.name for s in unasked.steps if s.result == "failed"] == ["arguments"]
        with pytest.raises(NotFound):
            await recalled(here, "c_nothing")


async def test_what_is_explained_is_what_the_gateway_does(tmp_path: Path) -> None:
    rules = {"production-deploy": {"by": ["subject"]}}
    async with world(tmp_path, policy="builtin:incident", approval=rules) as w:
        scopes = "pr:read:acme:api pr:write secret:read deploy:production"
        coder = await w.ready("coder", scopes, labels={"environment": "staging"})
        await w.client_agent("cursor", "alice", scope=scopes)
        w.clock.advance(timedelta(seconds=2))
        newest = await w.client_agent("cursor", "alice", scope=scopes)  # of two sign-ins, the later one is meant
        tokens = {"coder": await w.token(coder)}
        for tool, arguments in CALLS:
            foretold = await explained(w, "coder", f"acme__{tool}", arguments)
            assert foretold == await really(w, tokens["coder"], f"acme__{tool}", arguments), (tool, arguments)
        client = await w.store.agent(AgentName("cursor@alice"))
        who = Who(agent=client, person=None, session=None, proof=None)
        it = (await told_of(w.running.installation, who, "acme__read_secret", CALLS[4][1], w.clock)).explanation
        assert it.caller is not None and it.caller.session is not None and it.caller.key is None
        assert it.caller.session.id == newest.session
        w.clock.advance(timedelta(hours=13))
        assert await explained(w, "coder", "acme__deploy", CALLS[5][1]) == ("hold", None)  # another would begin


def test_every_reason_that_an_evaluation_gives_has_its_step() -> None:
    sources = [Path(name).read_text() for name in ("mcp_authz/evaluation.py", "mcp_authz/rules/decision.py")]
    sources.append(Path("mcp_authz/rules/obligation.py").read_text())
    given = {code for text in sources for code in re.findall(r'code="(\w+)"|_denied\(\w+, "(\w+)"', text)}
    codes = {one for pair in given for one in pair if one}
    assert codes and codes <= set(STEP_OF), codes - set(STEP_OF)
    assert set(STEP_OF.values()) <= set(ROAD)
