"""What a link, or a call that runs, stands on: the names of things by kind; it ends when one of them is revoked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.model import HeldCall, HoldState, Verdict
from mcp_authz.principals import Agent, AgentName, ClientId, GrantId, Link, Person, Session, SessionId
from mcp_authz.rules import jose
from mcp_authz.rules.hold import after_verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What it takes to say what links stand on."""

    agents: Mapping[AgentName, Agent]
    sessions: Mapping[SessionId, Session]
    clients: Mapping[GrantId, ClientId | None]  # that a grant was given through


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """The names of everything that something stands on, by kind."""

    names: Mapping[str, frozenset[str]]

    def meet(self, kind: str, names: Iterable[str]) -> bool:
        """Whether it ends when these things are revoked."""
        return not self.names.get(kind, frozenset()).isdisjoint(names)

    def __or__(self, other: Grounds) -> Grounds:
        kinds = {*self.names, *other.names}
        none = frozenset[str]()
        return Grounds(names={kind: self.names.get(kind, none) | other.names.get(kind, none) for kind in kinds})


def of_chain(session: Session, links: Sequence[Link], known: Known) -> Grounds:
    """What the last of these links, which lead to it from the root, stands on."""
    holders = [known.agents[link.holder] for link in links if link.holder in known.agents]
    first = known.agents.get(session.agent)
    person = session.subject or (None if first is None else first.owner)  # who answers for it
    clients = (known.clients.get(session.grant), *(agent.client for agent in holders))
    keys = chain.from_iterable((link.holder_key, link.signed_by) for link in links)
    return Grounds(
        names={
            "link": frozenset(link.id for link in links),
            "session": frozenset({session.id}),
            "grant": frozenset({session.grant}),
            "agent": frozenset(link.holder for link in links),
            "client": frozenset(client for client in clients if client is not None),
            "key": frozenset(key for key in keys if key is not None),
            "person": frozenset() if person is None else frozenset({str(person)}),
        }
    )


def of_approval(held: HeldCall, people: Mapping[str, Person]) -> Grounds:
    """What an approval stands on: all that its verdicts were given with, and everybody whom its rules cannot spare."""
    given = [verdict for verdict in held.verdicts if verdict.approve]
    named = {
        name
        for name in people
        if after_verdicts(held, {it: who for it, who in people.items() if it != name}) is not HoldState.APPROVED
    }
    return Grounds(
        names={
            "person": frozenset(named),
            "key": frozenset(str(verdict.signed_by) for verdict in given),
            "passkey": frozenset(name for verdict in given if (name := _passkey_of(verdict)) is not None),
            "approval": frozenset(str(verdict.standing) for verdict in given if verdict.standing is not None),
        }
    )


def _passkey_of(verdict: Verdict) -> str | None:
    """The passkey that was shown with the verdict, by its base64url id."""
    try:
        proof = jose.read(verdict.statement).claims.get("proof")
    except (InputError, SignatureRefused):
        return None
    named = proof.get("credential") if isinstance(proof, dict) else None
    return named if isinstance(named, str) else None
