"""Steps 7 to 13 for one call: everything that is decided about it, in order, before anything durable happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import InputError, ScopeError
from mcp_authz.model import Approval, Decision, Deny, RuleId, ToolCall
from mcp_authz.policy.document import authentication_of, policy_input
from mcp_authz.policy.engine import PolicyAnswer, PolicyEngine, PolicyInput, current
from mcp_authz.principals import Caller, Chain
from mcp_authz.proving import too_weak
from mcp_authz.rules.attributes import resource_attributes
from mcp_authz.rules.binding import action_digest
from mcp_authz.rules.constraint import permits_call
from mcp_authz.rules.decision import ApprovalFloor, decide
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.obligation import Means, within_means
from mcp_authz.rules.observe import observe
from mcp_authz.rules.schema import ArgumentSchema
from mcp_authz.rules.scope import Scope, common


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A decision with the facts that the record of it needs."""

    decision: Decision
    digest: bytes  # the action digest; empty when the call was denied before it could be bound
    resource: Mapping[str, Any]
    policy: str  # the digest of the policy set that was asked, or would have been
    asked: Asked | None = None  # None when the call was denied before policy was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What policy was asked, what it said, and what any other answer would have come to."""

    document: PolicyInput
    answer: PolicyAnswer
    conclude: Callable[[PolicyAnswer], Decision]
    decided: Decision  # what the answer came to, observe mode left aside
    needed: tuple[Scope, ...]  # the scopes that the call needs


class Evaluator:
    """Evaluates calls against scopes, constraints, session and policy; holds no state but compiled schemas."""

    def __init__(self, *, engine: PolicyEngine, floor: ApprovalFloor, means: Means | None = None) -> None:
        self.engine = engine
        self.floor = floor
        self.means = means or Means()
        self._schemas: dict[bytes, ArgumentSchema] = {}

    @property
    def policy_digest(self) -> str:
        """The digest of the policy set that decides now."""
        return current(self.engine).digest

    async def evaluate(self, caller: Caller, call: ToolCall, *, approval: Approval | None, at: datetime) -> Evaluation:
        """Return what is decided about this call; an approval is evidence and nothing is skipped because of it."""
        engine = current(self.engine)  # once: whatever is loaded meanwhile, this evaluation is of this policy
        policy = engine.digest
        tool, classification = call.tool, call.tool.classification
        if tool.off:  # step 7
            return _denied(policy, "switched_off", "switched-off")
        if tool.quarantined:
            return _denied(policy, "quarantined", "definition-pinned")
        if caller.proof < classification.proof:  # step 8
            decision = too_weak(caller, classification.proof)
            return Evaluation(decision=decision, digest=b"", resource={}, policy=policy)
        if (problem := self._schema(call).problem(call.arguments)) is not None:  # step 9
            return _denied(policy, "arguments", "input-schema", detail=problem)
        # Step 12's question about the session comes before step 10: without a chain there is nothing to cover, and a
        # challenge for more scope would send the client for a token that cannot help.
        if (
            caller.session is None
            or caller.chain is None
            or (caller.person is None) is not (caller.session.subject is None)
        ):
            return _denied(policy, _over(caller) if caller.session_over else "no_session", "open-session")
        if at >= caller.session.expires_at or at - caller.session.last_used_at > limits.SESSION_IDLE:
            return _denied(policy, _over(caller), "open-session")
        try:
            needed = tuple(template.fill(call.arguments) for template in classification.scopes)  # step 10
            resource = resource_attributes(classification.resource, call.arguments)
        except (ScopeError, InputError) as error:
            return _denied(policy, "scope_arguments", "scope-template", detail=str(error))
        denial = _scope_denial(caller, needed) or _constraint_denial(caller.chain, call)  # step 10, step 11
        # A token for less than its delegation has is no denial: the caller is sent to sign in for more, and can.
        if denial is not None and (denial.missing or not tool.observed):
            return Evaluation(decision=denial, digest=b"", resource=resource, policy=policy)
        digest = action_digest(
            call,
            session=caller.session.id,
            subject=caller.session.principal,
            actor=caller.agent.name,
            chain=caller.chain.agents,
        )
        # Evidence counts for the call it was given for, and only if it still meets a rule.
        counted = approval if approval is not None and approval.call_digest == digest and approval.rules else None
        document = policy_input(
            caller=caller,
            call=call,
            scope=effective(caller),
            resource=resource,
            approval=counted,
            at=at,
            agents=caller.holders,
        )

        def decided(answer: PolicyAnswer) -> Decision:  # 13
            decision = decide(
                call_digest=digest,
                tool=tool,
                answer=answer,
                approval=counted,
                floor=self.floor,
                authentication=authentication_of(caller),
                at=at,
            )
            return within_means(decision, self.means, arguments=call.arguments, resource=resource)

        def seen(decision: Decision) -> Decision:
            return observe(_answerable(decision, caller), tool=tool, call_digest=digest, earlier=denial)

        answer = await engine.evaluate(document)  # step 12
        came_to = decided(answer)
        return Evaluation(
            decision=seen(came_to),
            digest=digest,
            resource=resource,
            policy=policy,
            asked=Asked(
                document=document,
                answer=answer,
                conclude=lambda other: seen(decided(other)),
                decided=came_to,
                needed=needed,
            ),
        )

    def _schema(self, call: ToolCall) -> ArgumentSchema:
        # Keyed by the pinned definition's digest: immutable bytes, so a compiled schema cannot go stale.
        schema = self._schemas.get(call.tool.digest)
        if schema is None:
            schema = self._schemas[call.tool.digest] = ArgumentSchema(call.tool.definition.get("inputSchema") or {})
        return schema


def _over(caller: Caller) -> str:
    """The reason code of a session that has ended: a client agent asks for none, its person agrees again."""
    return "session_over" if caller.agent.client is None else "consent_over"


def _scope_denial(caller: Caller, needed: tuple[Scope, ...]) -> Deny | None:
    assert caller.chain is not None  # noqa: S101 - the caller of this has checked it
    ceilings = (
        ("ceiling" if name == caller.agent.name else f"ceiling:{name}", scopes)
        for name, scopes in caller.ceilings.items()
    )
    held = [*ceilings, *((f"link:{link.id}", link.scope) for link in caller.chain.links)]
    for name, scopes in held:
        if lacking := uncovered(needed, scopes):
            if caller.agent.client is not None and name.startswith("link:"):
                break  # the person who agreed to so much can agree to more: the client is sent to ask
            detail = f"{name} does not cover {' '.join(lacking)}"
            return Deny(code="insufficient_scope", because=(RuleId(name),), detail=detail)
    if uncovered(needed, caller.token.scope) or uncovered(needed, caller.chain.leaf.scope):
        everything = tuple(sorted({*caller.token.scope, *needed}))
        return Deny(code="insufficient_scope", because=(RuleId("token"),), detail="token", missing=everything)
    return None


def _answerable(decision: Decision, caller: Caller) -> Decision:
    """A sign-in helps only a client that got its grant by one: whoever else is sent for it would come for ever."""
    if not isinstance(decision, Deny) or decision.max_age is None:
        return decision
    can_ask = caller.agent.client is not None and authentication_of(caller) is not None
    return decision if can_ask else replace(decision, max_age=None)


def _constraint_denial(chain: Chain, call: ToolCall) -> Deny | None:
    for link in chain.links:
        why = None if link.tools is None else permits_call(link.tools, call.tool.name, call.arguments)
        if why is not None:
            return Deny(code="constraint", because=(RuleId(f"link:{link.id}"),), detail=why)
    return None


def effective(caller: Caller) -> frozenset[Scope]:
    """What token, every link and every ceiling have in common: the scopes that policy may count on."""
    scopes = caller.token.scope
    for ceiling in caller.ceilings.values():
        scopes = common(scopes, ceiling)
    for link in caller.chain.links if caller.chain is not None else ():
        scopes = common(scopes, link.scope)
    return scopes


def _denied(policy: str, code: str, rule: str, *, detail: str = "") -> Evaluation:
    deny = Deny(code=code, because=(RuleId(rule),), detail=detail)
    return Evaluation(decision=deny, digest=b"", resource={}, policy=policy)
