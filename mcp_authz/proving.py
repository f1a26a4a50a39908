"""What a request brings along as proof: signed links (step 5) and a signed call (step 8), and that each counts once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mcp_authz import limits
from mcp_authz.errors import DelegationError, InputError, SignatureRefused, TokenRefused
from mcp_authz.model import Deny, ProofNeeded, RuleId
from mcp_authz.principals import Caller, Once, Proof
from mcp_authz.rules import link_id
from mcp_authz.rules.call_proof import DELEGATION, INVOCATION, CallProof, Proved, proved, read_call_proof
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.message import Message
from mcp_authz.rules.signed_link import verify_links
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Clock, Event, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proving:
    """What proofs are checked against: this gateway as their audience, and its keys under the roots of chains."""

    audience: str  # the resource URI
    issuer: str
    keys: Mapping[str, PublicKey]  # kid -> key
    clock: Clock

    def require_links(self, caller: Caller, links: object) -> None:
        """Return only if the links are the signed chain of the token's own link; they add no authority.

        Raises:
            TokenRefused: they are not.
        """
        if not isinstance(links, list) or not all(isinstance(text, str) for text in links):
            raise TokenRefused("the delegation of the request is no list of signed links")
        if caller.key is None:
            raise TokenRefused("a client agent has no key that a link could have been given to")
        try:
            chain = verify_links(links, issuer=self.issuer, keys=self.keys, presenter=caller.key, now=self.clock())
            leaf = link_id.link_id(chain.leaf.id)
        except (SignatureRefused, DelegationError, InputError) as error:
            raise TokenRefused(f"the delegation of the request is not valid: {error}") from None
        if leaf != caller.token.link:
            raise TokenRefused("the delegation of the request ends in another link than its token")

    def call_proof(self, caller: Caller, message: Message) -> CallProof:
        """Return the proof in the request's `_meta`, once it is known to be the caller's, of exactly this call.

        Raises:
            SignatureRefused: it is not.
        """
        text = message.meta.get(INVOCATION)
        if not isinstance(text, str):
            raise SignatureRefused("the proof is not text")
        if caller.key is None:
            raise SignatureRefused("a client agent has no key that could sign a call")
        try:
            call = self._of(caller, message)
            return read_call_proof(text, call, holder=PublicKey.from_raw(caller.public_key), now=self.clock())
        except InputError as error:
            raise SignatureRefused(str(error)) from None

    def _of(self, caller: Caller, message: Message) -> Proved:
        if (link := link_to_sign(caller)) is None:
            raise SignatureRefused("the token stands for no link that a proof could name")
        return proved(str(message.method), message.params, link=link, audience=self.audience)


class Proofs:
    """The proofs that one request came with: verified once, spent once."""

    def __init__(self, proving: Proving, store: Store, caller: Caller, message: Message) -> None:
        self._proving = proving
        self._store = store
        self._message = message
        self._bound = caller.once
        self._signed: tuple[Once, ...] = ()
        self.caller = caller
        self._proof: tuple[str, str] | None = None  # the verified call proof: its id, and as it was signed
        self.only_run: tuple[Once, ...] = ()  # what the one run of a task uses up, where it claims no approval

    def refuse_links(self) -> Deny | None:
        """Step 5, as far as links come with the request: the denial when they are not what the token stands on."""
        if DELEGATION not in self._message.meta:
            return None
        try:
            self._proving.require_links(self.caller, self._message.meta[DELEGATION])
        except TokenRefused as error:
            log.info("links of %s refused: %s", self.caller.agent.name, error)
            return Deny(code="links_invalid", because=(RuleId("signed-links"),), detail=str(error))
        return None

    def refuse_call(self) -> Deny | None:
        """Step 8: the denial when a proof came along that is none of this call; a good one makes the call `signed`."""
        if INVOCATION not in self._message.meta or self._proof is not None:
            return None
        try:
            proof = self._proving.call_proof(self.caller, self._message)
        except SignatureRefused as error:
            needs = ProofNeeded(proof=Proof.SIGNED, link=link_to_sign(self.caller))
            return Deny(code="proof_invalid", because=(RuleId("call-proof"),), detail=str(error), needs=needs)
        # Ids are the signer's own choice: under its key nobody else can use them up.
        id_, made_at = f"{self.caller.key}.{proof.id}", proof.expires_at - limits.CLOCK_SKEW
        self._signed = (Once(kind="call-proof", id=id_, expires_at=proof.expires_at, issued_at=made_at),)
        self._proof = (proof.id, str(self._message.meta[INVOCATION]))
        self.caller = replace(self.caller, proof=Proof.SIGNED)
        return None

    async def stand_again(self, sessions: Sessions) -> Deny | None:
        """Steps 5 and 6 once more, for a caller who may have waited for long: the denial when something has ended.

        The token was good when the request came; what it stands on is read anew, and is what counts from here on.
        """
        try:
            now = await sessions.identify(self.caller.token, self.caller.proof)
        except TokenRefused as error:
            log.info("the call of %s ended while it waited: %s", self.caller.agent.name, error)
            return Deny(code="revoked", because=(RuleId("standing"),), detail=str(error))
        self.caller = replace(now, once=self.caller.once, peer=self.caller.peer)
        return None

    def on_record(self, event: Event) -> Event:
        """The record with the proof of the call, where it was signed; what was signed is kept beside it."""
        if self._proof is None:
            return event
        id_, text = self._proof
        return replace(event, fields={**event.fields, "proof_id": id_, "proof_digest": name_of(text)}, signed=text)

    @property
    def unspent(self) -> tuple[Once, ...]:
        """What the transaction of a permitted call has to remember."""
        return (*self._bound, *self._signed)

    async def spend(self) -> bool:
        """Whether no other request was first; the proofs of this one are remembered, and it may go on using them."""
        signed, self._signed = self._signed, ()
        first = await self.spend_bound()
        for once in signed:
            first = await self._store.remember(once) and first
        return first

    async def spend_bound(self) -> bool:
        """The same for what proves the token alone: a client that is sent for another token sends the same call again.

        The proof of that call has done nothing yet, and whoever repeats it now is told the same.
        """
        bound, self._bound = self._bound, ()
        first = True
        for once in bound:
            first = await self._store.remember(once) and first
        return first


def link_to_sign(caller: Caller) -> str | None:
    """The id of the token's link as it is signed; None in the agent's own name, and for a link without such an id."""
    try:
        return None if caller.token.link is None else link_id.jti(caller.token.link)
    except InputError:
        return None


def too_weak(caller: Caller, least: Proof) -> Deny:
    """The denial of a call that is proved by less than it needs."""
    needs = ProofNeeded(proof=least, link=link_to_sign(caller))
    return Deny(code="proof_required", because=(RuleId("least-proof"),), needs=needs)
