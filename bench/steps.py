"""Where the time of one call goes: each step of the road by itself, in one process, one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from bench.governed import SERVER
from bench.house import House, channel
from bench.timing import timed
from bench.wire import ARGUMENTS
from mcp_authz import audit
from mcp_authz.evaluation import effective
from mcp_authz.installation import utc_now
from mcp_authz.model import Admitted, Permit
from mcp_authz.policy.document import policy_input
from mcp_authz.policy.loading import load_engine
from mcp_authz.principals import Caller
from mcp_authz.protocol.reading import Read, check_headers, is_modern, read
from mcp_authz.relay import GovernedRelay
from mcp_authz.rules import strict_json
from mcp_authz.rules.binding import action_digest
from mcp_authz.rules.delegation import uncovered, verify_chain
from mcp_authz.rules.schema import ArgumentSchema
from mcp_authz.rules.token import read_access_token
from mcp_authz.store.ports import Admission, Event
from mcp_authz.store.sqlite import SqliteStore

Measured = list[tuple[str, Callable[[], Awaitable[Any]]]]


async def steps(house: House, calls: int) -> list[tuple[str, float]]:
    """Name and microseconds of each step, in the order of the road."""
    caller, at = await house.caller(), utc_now()
    # The same file once more, where commits are not waited for; the gateway has no switch for this.
    loose = SqliteStore.open(
        house.running.installation.config.data / "store.db",
        sealer=house.running.installation.sealer,
        clock=utc_now,
        synchronous="NORMAL",
    )
    try:
        measured = [*_identified(house, caller, at), *_decided(house, caller, at), *_done(house, caller, at, loose)]
        return [(name, await timed(step, calls)) for name, step in measured]
    finally:
        await loose.aclose()


def _identified(house: House, caller: Caller, at: datetime) -> Measured:
    """Steps 1 to 6: what the request is, and who makes it."""
    asked, config = house.request, house.running.installation.config
    assert caller.session is not None and caller.grant is not None and caller.chain is not None
    session, chain, grant = caller.session, caller.chain, caller.grant

    def token() -> None:
        read_access_token(
            house.token, keys=house.issuer.public, issuer=config.public_url, audience=config.resource, now=at
        )

    def verified() -> None:
        verify_chain(chain.links, session=session, grant=grant, holders=caller.holders, at=at)

    return [
        ("1  strict JSON, read and written again", _each(lambda: _rewritten(asked.raw))),
        ("2  headers", _each(lambda: (check_headers(asked.headers), is_modern(dict(asked.headers))))),
        ("1-2 together, with the envelope's own checks", _each(lambda: read(asked))),
        ("3  access token: signature, claims, times", _each(token)),
        ("6  standing of everybody, one read", lambda: _standing(house, caller)),
        ("5  chain of one link", _each(verified)),
    ]


def _decided(house: House, caller: Caller, at: datetime) -> Measured:
    """Steps 9 to 12: what is decided from facts alone."""
    config, tool = house.running.installation.config, house.tool
    schema, engine = ArgumentSchema(tool.definition["inputSchema"]), load_engine(config, config.policy)
    assert caller.session is not None and caller.chain is not None
    session, chain = caller.session, caller.chain

    def scopes() -> None:
        needed = tuple(template.fill(ARGUMENTS) for template in tool.classification.scopes)
        assert not any(uncovered(needed, held) for held in (caller.agent.ceiling, chain.leaf.scope, caller.token.scope))

    def bound() -> None:
        action_digest(
            house.tool_call, session=session.id, subject=session.principal, actor=caller.agent.name, chain=chain.agents
        )

    def document() -> dict[str, Any]:
        return policy_input(
            caller=caller,
            call=house.tool_call,
            scope=effective(caller),
            resource={"book": ARGUMENTS["book"]},
            approval=None,
            at=at,
            agents=caller.holders,
        )

    written = document()
    return [
        ("9  input schema", _each(lambda: schema.problem(ARGUMENTS))),
        ("10 scopes", _each(scopes)),
        ("12 action digest", _each(bound)),
        ("12 policy input", _each(document)),
        ("12 Cedar, default policy", lambda: engine.evaluate(written)),
    ]


def _done(house: House, caller: Caller, at: datetime, loose: SqliteStore) -> Measured:
    """Steps 14 to 16, and the whole road; `loose` is the store where commits are not waited for."""
    store, downstream = house.running.installation.store, house.running.parts.downstreams[SERVER]
    message, admitted = read(house.request), _admitted(house)
    assert isinstance(message, Read)
    relay = GovernedRelay(server=SERVER, channel=channel(message), elicitation=True)
    return [
        ("14 decision record, without storing it", _each(lambda: decision(house, caller, at))),
        ("14 admit, not waiting for the disk", lambda: loose.admit(admission(house, caller, at))),
        ("14 admit, durable, one call at a time", lambda: store.admit(admission(house, caller, at))),
        ("15 forward over HTTP, answer included", lambda: downstream.forward(admitted, relay)),
        ("16 outcome record, not waiting for the disk", lambda: loose.append(outcome(house, caller, at))),
        ("16 outcome record, durable, one at a time", lambda: store.append(outcome(house, caller, at))),
        ("1-16 whole road, one call at a time", house.call),
    ]


def decision(house: House, caller: Caller, at: datetime) -> Event:
    """The decision record of the call."""
    permit = Permit(call_digest=b"", approval=None, because=())
    decided = audit.decided(permit, policy=house.running.parts.evaluator.policy_digest)
    said = audit.what(house.tool_call, {"book": "recipes"}, house.running.parts.evidence)
    return audit.decision_event("c_bench", at, audit.who(caller), said, decided, {})


def outcome(house: House, caller: Caller, at: datetime) -> Event:
    """The outcome record of the call."""
    return audit.outcome_event(
        "c_bench", started=at, ended=at, outcome="done", caller=caller, call=house.tool_call, result=None
    )


def admission(house: House, caller: Caller, at: datetime) -> Admission:
    """What step 14 is asked."""
    assert caller.session is not None and caller.grant is not None and caller.chain is not None
    return Admission(
        event=decision(house, caller, at),
        agent=caller.agent.name,
        key=caller.key,
        subject=caller.session.subject,
        grant=caller.grant.id,
        session=caller.session.id,
        links=tuple(link.id for link in caller.chain.links),
        server=SERVER,
        tool=house.tool.tool,
        definition_digest=house.tool.digest,
    )


def _admitted(house: House) -> Admitted:
    permit = Permit(call_digest=b"", approval=None, because=())
    return Admitted(call_id="c_bench", call=house.tool_call, permit=permit, at=utc_now())


def _standing(house: House, caller: Caller) -> Awaitable[Any]:
    assert caller.session is not None and caller.chain is not None
    return house.running.installation.store.standing(
        agent=caller.agent.name, key=caller.key, person=caller.session.subject, link=caller.chain.leaf.id
    )


def _rewritten(raw: bytes) -> bytes:
    return strict_json.dump(strict_json.parse_object(raw))


def _each(step: Callable[[], Any]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        step()

    return run
