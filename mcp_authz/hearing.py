"""The ways a verdict comes in: each makes one `Verdict` of what a person answered, signed by them or by the gateway.

Whether the verdict may be given, and what follows from it, is decided by `approvals.Approvals` for all of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mcp_authz import limits
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.model import Assurance, HeldCall, HoldId, Verdict
from mcp_authz.principals import Caller, PersonName
from mcp_authz.rules import verdict as verdicts
from mcp_authz.rules.deciding import ClientAnswer, may_decide
from mcp_authz.rules.hold import prompt_may_answer
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.verdict import PasskeyProof, SignInProof
from mcp_authz.rules.webhook_message import concerns


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAnswer:
    """What a person who is signed in answers on the page; an approval brings the proof that it is them just now."""

    person: PersonName
    approve: bool
    reason: str
    terms: Mapping[str, Any]
    proof: PasskeyProof | SignInProof | None
    sent_back: bool = False  # a denial that asks for another call, and says which


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAnswer:
    """What a webhook says that somebody answered, in a message of which it is known who signed it."""

    webhook: str
    message: str  # the message's id
    rules: frozenset[str]  # the approval rules that the webhook is about; empty: all
    hold: HoldId
    person: PersonName
    approve: bool
    sent_back: bool
    reason: str
    act_s256: str
    shown_s256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the gateway knows somebody to have answered, and how it knows: what it signs itself."""

    person: PersonName
    approve: bool
    assurance: Assurance
    reason: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)
    sent_back: bool = False
    proof: Mapping[str, Any] | None = None  # the claim `proof` of the statement


def by_gateway(held: HeldCall, answered: Answered, *, key: PrivateKey, at: datetime) -> Verdict:
    """The verdict whose statement the gateway signs, for it is the gateway's word that this was answered."""
    statement = verdicts.make_statement(
        held,
        person=answered.person,
        approve=answered.approve,
        assurance=answered.assurance,
        reason=answered.reason,
        at=at,
        key=key,
        terms=answered.terms,
        proof=answered.proof,
        sent_back=answered.sent_back,
    )
    return Verdict(
        hold=held.id,
        person=answered.person,
        approve=answered.approve,
        sent_back=answered.sent_back,
        assurance=answered.assurance,
        statement=statement,
        signed_by=key.public.thumbprint,
        reason=answered.reason,
        terms=answered.terms,
        given_at=at,
    )


def by_own_key(
    held: HeldCall, statement: str, *, person: PersonName, keys: Mapping[str, PublicKey], at: datetime
) -> Verdict:
    """The verdict in a statement that the approver signed.

    Raises:
        SignatureRefused: it is not over this hold and what it displays, or not by one of these keys.
    """
    read = verdicts.read_statement(statement, held=held, person=person, keys=keys, now=at)
    return Verdict(
        hold=held.id,
        person=person,
        approve=read.approve,
        sent_back=read.sent_back,
        assurance=Assurance.SIGNED_IN,
        statement=statement,
        signed_by=read.signed_by,
        reason=read.reason,
        terms=read.terms,
        given_at=at,
    )


def by_own_prompt(held: HeldCall, *, approve: bool, terms: Mapping[str, Any] | None) -> Answered:
    """What the subject's own client answered to the prompt.

    Raises:
        Conflict: a client's prompt may not answer this hold at all.
    """
    if not prompt_may_answer(held):
        raise Conflict(f"hold `{held.id}` cannot be answered by the requesting client's own prompt")
    return Answered(person=held.subject, approve=approve, assurance=Assurance.CLIENT, terms=terms or {})


def by_other_client(caller: Caller, answer: ClientAnswer) -> Answered:
    """What a person answered in a client of theirs that is none of those that ask, and which client that is.

    Raises:
        Conflict: the person did not let this client answer held calls, or it is nobody's own.
    """
    if not may_decide(caller) or caller.person is None:
        raise Conflict("this client may not answer held calls; its person agrees to that on the consent page")
    return Answered(
        person=caller.person.name,
        approve=answer.approve,
        sent_back=answer.sent_back,
        assurance=Assurance.CLIENT_OTHER,
        reason=answer.reason,
        terms=answer.terms,
        proof={
            "type": "client",
            "client": caller.agent.client,
            "agent": f"agent:{caller.agent.name}",
            "token": caller.token.id,
            "proof": caller.proof.name.lower(),
        },
    )


def by_webhook(held: HeldCall, answer: WebhookAnswer) -> Answered:
    """What a webhook says that this person answered: never surer than another client, whatever else it says.

    Raises:
        NotFound: the webhook is not about this hold.
        Conflict: what was answered is not what waits, or not what has to be shown of it.
    """
    if not concerns(answer.rules, held):
        raise NotFound(f"there is no hold `{held.id}`")
    verdicts.require_same(held, act_s256=answer.act_s256, shown_s256=answer.shown_s256)
    return Answered(
        person=answer.person,
        approve=answer.approve,
        assurance=Assurance.CLIENT_OTHER,
        reason=answer.reason,
        sent_back=answer.sent_back,
        proof={"type": "webhook", "webhook": answer.webhook, "id": answer.message},
    )


def by_page(held: HeldCall, answer: PageAnswer, *, at: datetime) -> Answered:
    """What a person answered on the page, with the proof that it was them.

    Raises:
        Conflict: an approval comes without a proof, or with a sign-in of too long ago.
        SignatureRefused: the proof is about something else.
    """
    proof = answer.proof
    if answer.approve and proof is None:
        raise Conflict("an approval on the page takes a passkey, or a sign-in of just now")
    if isinstance(proof, PasskeyProof):
        challenge = verdicts.approval_challenge(
            held, person=answer.person, reason=answer.reason, terms=answer.terms, nonce=proof.nonce
        )
        verdicts.require_challenge(proof, challenge)
    if isinstance(proof, SignInProof) and at - proof.at > limits.APPROVAL_SIGN_IN:
        raise Conflict("sign in again first: you approve with a sign-in of just now")
    return Answered(
        person=answer.person,
        approve=answer.approve,
        assurance=Assurance.PASSKEY if isinstance(proof, PasskeyProof) else Assurance.SIGNED_IN,
        reason=answer.reason,
        terms=answer.terms,
        sent_back=answer.sent_back,
        proof=None if proof is None else proof.to_json(),
    )
