"""What would have to change for a call to be permitted, and the command that changes it or shows more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mcp_authz.evaluation import effective
from mcp_authz.explaining import Explanation
from mcp_authz.model import ApprovalRule, Deny, Hold, Permit
from mcp_authz.principals import Agent, Caller, Grant, Link, Proof, Session
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One thing that somebody can do; `command` is what follows `mcp-authz`, or nothing."""

    text: str
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of the agent beside the call."""

    agent: Agent
    grants: Sequence[Grant]  # that are active
    sessions: Sequence[Session]  # that are open


_LINT: Final = Remedy(text="look at what the policy's annotations ask for", command=("policy", "lint"))
_PLAIN: Final = {
    "policy": Remedy(text="policy has to say otherwise, or the call has to be another", command=("policy", "test")),
    "arguments": Remedy(text="call it with other arguments; this is about their form"),
    "scope_arguments": Remedy(text="call it with other arguments; this is about their form"),
    "budget": Remedy(text="start another session, or one with more calls", command=("session", "list")),
    "switched_off": Remedy(text="it was switched off for everybody until it is accepted", command=("tools", "list")),
    "policy_error": Remedy(text="the policy cannot be decided for this input", command=("policy", "lint")),
    "obligation": _LINT,
    "spent": Remedy(text="ask for less, or wait until there is more"),
    "rate_limited": Remedy(text="wait; the permit says how often"),
}


def remedies(it: Explanation, known: Known) -> tuple[Remedy, ...]:
    """Return what would change the decision, the nearest first; nothing where policy has to say it."""
    match it.decision:
        case Permit():
            return ()
        case Hold(rules=rules):
            return tuple(_approval(rules))
        case Deny() as deny:
            return tuple(_denial(it, deny, known))


def _approval(rules: Sequence[ApprovalRule]) -> Iterator[Remedy]:
    for rule in rules:
        yield Remedy(text=f"held under rule {rule.name}: {in_words(rule)}")
    yield Remedy(text="when it is called, it waits until they have answered", command=("holds", "list"))


def in_words(rule: ApprovalRule) -> str:
    """Who must agree, and how."""
    words = [f"{rule.quorum} of {', '.join(rule.by)}" if rule.quorum > 1 else " or ".join(rule.by)]
    if rule.outside_chain:
        words.append("outside the chain")
    words.append(f"by {rule.assurance.label} or stronger")
    words.append(f"within {int(rule.expires.total_seconds() // 60)} minutes")
    return ", ".join(words)


def _denial(it: Explanation, deny: Deny, known: Known) -> Iterator[Remedy]:
    name = known.agent.name
    match deny.code:
        case "no_key":
            yield Remedy(text=f"give {name} a key: it enrols with a one-time code", command=("agent", "code", name))
        case "revoked":
            yield Remedy(text="look at what it stands on", command=("agent", "show", name))
        case "unknown_tool":
            yield from _tool(it)
        case "quarantined":
            tool = "" if it.tool is None else it.tool.name
            yield Remedy(text="look at what changed in its definition, and accept it", command=("tools", "diff", tool))
        case "proof_required":
            yield _proof(it)
        case "no_session" | "session_over" | "consent_over":
            yield from _session(known)
        case "insufficient_scope":
            yield from _scopes(it)
        case "constraint":
            yield from _constraint(it, deny)
        case "stale_sign_in":
            yield _sign_in(it, deny)
        case code if code in _PLAIN:
            yield _PLAIN[code]


def _tool(it: Explanation) -> Iterator[Remedy]:
    if it.tool is None:
        yield Remedy(text="no configured server has listed a tool of this name", command=("tools", "list"))
        return
    yield Remedy(text="nothing that this agent has could ever cover the tool; to it, the tool does not exist")
    if it.caller is not None:
        wanted = " ".join(str(scope) for scope in it.tool.classification.scopes)
        for name, ceiling in it.caller.ceilings.items():
            if not all(template.could_match(ceiling) for template in it.tool.classification.scopes):
                text = f"the ceiling of agent {name} has nothing for {wanted}: raise it"
                yield Remedy(text=text, command=("agent", "show", name))
        for link in () if it.caller.chain is None else it.caller.chain.links:
            if not all(template.could_match(link.scope) for template in it.tool.classification.scopes):
                yield Remedy(text=f"{_whose(link, it.caller)} has nothing for {wanted}")
            if link.tools is not None and it.tool.name not in link.tools:
                yield Remedy(text=f"{_whose(link, it.caller)} is for other tools: {', '.join(sorted(link.tools))}")


def _proof(it: Explanation) -> Remedy:
    least = Proof.SIGNED if it.tool is None else it.tool.classification.proof
    how = "signed by the agent's key" if least is Proof.SIGNED else "bound to a key (DPoP)"
    return Remedy(text=f"the call has to be {how}: `mcp-authz connect` and the client library do that by themselves")


def _session(known: Known) -> Iterator[Remedy]:
    name = known.agent.name
    people = sorted({str(grant.subject) for grant in known.grants if grant.subject is not None})
    if known.agent.client is not None:
        yield Remedy(text=f"{known.agent.owner} connects the client again, and agrees to it")
    elif len(known.sessions) > 1:
        ids = ", ".join(session.id for session in known.sessions)
        yield Remedy(text=f"it has several open sessions, and none is guessed: name one with --session ({ids})")
    elif len(people) > 1:
        yield Remedy(text=f"it acts for several people, and none is guessed: --for {' or --for '.join(people)}")
    elif people:
        words = ("session", "start", "--agent", name, "--subject", people[0], "--purpose", "PURPOSE")
        yield Remedy(text=f"start a session of what {people[0]} granted", command=words)
    else:
        add = ("grant", "add", "--subject", "PERSON", "--agent", name, "--scope", "SCOPES")
        yield Remedy(text="nobody has granted it anything: let somebody do so", command=add)


def _scopes(it: Explanation) -> Iterator[Remedy]:
    """Every place that lacks something, and not only the first that the gateway came upon."""
    caller = it.caller
    if caller is None or caller.chain is None:
        return
    for name, ceiling in caller.ceilings.items():
        if lacking := uncovered(it.needed, ceiling):
            words = ("agent", "edit", name, "--ceiling", _joined(ceiling, lacking))
            yield Remedy(text=f"the ceiling of agent {name} lacks {' '.join(lacking)}: raise it", command=words)
    for link in caller.chain.links:
        if lacking := uncovered(it.needed, link.scope):
            yield _link(link, caller, lacking)
    if not uncovered(it.needed, caller.chain.leaf.scope) and uncovered(it.needed, effective(caller)):
        yield Remedy(text="the token has less than it could: the client asks for more by itself")


def _link(link: Link, caller: Caller, lacking: tuple[Scope, ...]) -> Remedy:
    text = f"{_whose(link, caller)} lacks {' '.join(lacking)}"
    if caller.agent.client is not None:
        return Remedy(text=f"{text}: the client sends {caller.agent.owner} to the page, who can agree to it")
    if link.parent is not None or caller.grant is None or caller.session is None:
        return Remedy(text=f"{text}: {link.holder} has to be given it anew, by the agent above")
    if caller.session.subject is None:
        return Remedy(text=f"{text}: start another session of its own with it", command=("session", "start", "--help"))
    subject, agent = caller.session.subject, caller.session.agent
    if uncovered(lacking, caller.grant.scope):
        add = ("grant", "add", "--subject", subject, "--agent", agent, "--scope", _joined(link.scope, lacking))
        return Remedy(text=f"{text}, and so does the grant of {subject}: let {subject} grant it", command=add)
    words = ("session", "start", "--agent", agent, "--subject", subject, "--purpose", "PURPOSE")
    return Remedy(text=f"{text}, though {subject} granted it: start a session with all of it", command=words)


def _whose(link: Link, caller: Caller) -> str:
    if link.parent is None and caller.session is not None:
        return f"the session of {caller.session.principal.partition(':')[2]} with {link.holder}"
    return f"the delegation to {link.holder} ({link.id})"


def _joined(had: frozenset[Scope], lacking: Sequence[Scope]) -> str:
    return " ".join(sorted({*had, *lacking}))


def _constraint(it: Explanation, deny: Deny) -> Iterator[Remedy]:
    if it.caller is None or it.caller.chain is None:
        return
    for link in it.caller.chain.links:
        if f"link:{link.id}" in deny.because:
            whose = _whose(link, it.caller)
            command = ("session", "show", link.session)
            yield Remedy(
                text=f"{whose} permits other arguments: call within them, or have it given anew", command=command
            )


def _sign_in(it: Explanation, deny: Deny) -> Remedy:
    who = "the person" if it.caller is None or it.caller.person is None else it.caller.person.name
    if deny.max_age is not None:
        return Remedy(text=f"the client sends {who} to sign in again; no more is needed")
    return Remedy(text=f"{who} has to sign in and start a session for this, or do it themselves")
