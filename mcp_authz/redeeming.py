"""Signed chains at the gateway: what a delegator signed becomes links of the store, and a link becomes a signed root.

A root is a rendering of a stored link for one key of its holder: the same link, under the same id. What is derived from
it hangs below that link, so that neither depth nor lifetime, constraints or budget begin anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile

from mcp_authz import limits
from mcp_authz.delegating import Delegations, Source, made, refused
from mcp_authz.errors import Conflict, DelegationError, InputError, SignatureRefused, TokenRefused
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.principals import Agent, AgentName, Chain, Key, Link, LinkId, Session, SessionId, Thumbprint
from mcp_authz.rules import link_id as ids
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.signed_link import Given, Purpose, SignedChain, SignedLink, sign_root, verify_links
from mcp_authz.signatures import Signatures
from mcp_authz.standing import chain_of, is_over, require_answerable
from mcp_authz.store.ports import Clock, Event, Registration, Statement, Store

AgentKeys = Callable[[Agent], Awaitable[Sequence[Key]]]
"""Returns an agent's keys as they are now, replaced and revoked ones included."""


class Chains:
    """Takes signed chains in, and gives signed roots out.

    `agent_keys` knows keys of agents that are hosted elsewhere; None stands for what the store says.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        issuer: str,
        keys: IssuerKeys,
        delegations: Delegations,
        agent_keys: AgentKeys | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._keys = keys
        self._delegations = delegations
        self._agent_keys = agent_keys or self._stored_keys
        self.signatures = Signatures(store=store, issuer=issuer, keys=keys.roots, is_withdrawn=keys.live.is_withdrawn)

    async def root(self, leaf: Link, session: Session, chain: Chain, key: Key) -> tuple[str, ...]:
        """Return the signed chain from which the holder of `leaf` delegates with this key.

        A link that was signed for the key is given back with those above it; any other is rendered as a root.

        Raises:
            InputError: the link is older than links that can be signed.
        """
        if leaf.statement is not None and is_signed_for(leaf, key):
            return tuple(statement.text for statement in await self._store.statements(leaf.statement))
        given = Given(
            id=ids.jti(leaf.id),
            holder=PublicKey.from_raw(key.raw),
            scope=leaf.scope,
            tools=leaf.tools,
            max_depth=leaf.max_depth - leaf.depth,
            issued_at=_whole(leaf.issued_at),
            expires_at=_whole(leaf.expires_at),
            max_calls=leaf.max_calls,
            reason=leaf.reason,
        )
        purpose = Purpose(
            subject=session.principal,
            subject_issuer=self._issuer,
            session=session.id,
            purpose=session.purpose,
            agents=tuple(f"agent:{name}" for name in chain.agents),
        )
        return (sign_root(given, purpose, issuer=self._issuer, key=self._keys.signing),)

    def verify(self, texts: Sequence[str], presenter: Thumbprint) -> SignedChain:
        """Return the chain, once it is known to be signed, live and this key's; the store is not asked.

        Raises:
            SignatureRefused, DelegationError: as `verify_links`.
        """
        return verify_links(texts, issuer=self._issuer, keys=self._keys.roots, presenter=presenter, now=self._clock())

    async def require_last(self, chain: SignedChain, delegator: AgentName) -> None:
        """Return only if the last link is signed by a key that counts as this agent's, and no link of it was revoked.

        Raises:
            SignatureRefused: the key is not the agent's, or does not count any more, or the store has another link.
            Conflict: a link was revoked.
        """
        await self._known(chain)
        await self._require_signer(delegator, chain.leaf)

    async def redeem(self, chain: SignedChain, texts: Sequence[str]) -> tuple[Session, Link]:
        """Return session and link of the chain's leaf; links, statements and children that were not there are.

        Raises:
            SignatureRefused: the root is not what the store has, or a key is not whose it should be.
            DelegationError: a step may not be made.
            Conflict: what the chain stands on has ended, or something was taken at this very moment.
        """
        known = await self._known(chain)
        source = await self._standing(chain, known)
        new, children = list[Link](), dict[AgentName, tuple[Agent, Key]]()
        for signed in chain.links[len(known) :]:
            delegator, link = source.chain.leaf.holder, _link(source.chain.leaf, signed)
            try:
                await self._require_signer(delegator, signed)
                holder, key = await self._holder(delegator, signed)
                link = replace(link, holder=holder.name)
                await self._delegations.require(replace(source, key=link.signed_by), holder, link)
            except (DelegationError, SignatureRefused, InputError) as error:
                await self._store.append(refused(source.session, delegator, link, error, at=self._clock()))
                raise
            if key is not None:
                children[holder.name] = (holder, key)
            new.append(link)
            source = replace(source, chain=Chain(links=(*source.chain.links, link)))
        if new:
            await self._register(source, new, tuple(children.values()), _statements(chain, texts))
        return source.session, source.chain.leaf

    async def revoke(self, chain: SignedChain, texts: Sequence[str], *, by: Agent) -> None:
        """The chain's leaf is revoked where `by` holds it or one above it, also when it was never redeemed.

        Then it is kept as a revoked link, so that it can never be redeemed. Otherwise nothing is changed.
        """
        holders = {Thumbprint(link.holder.thumbprint) for link in chain.links}
        if not holders & {key.thumbprint for key in await self._store.keys_of(f"agent:{by.name}") if key.proved}:
            return
        leaf, event = ids.link_id(chain.leaf.id), revoked(ids.link_id(chain.leaf.id), by.name, self._clock())
        try:
            known = await self._known(chain)
            if known and len(known) < len(chain.links):
                ended = replace(_link(known[-1], chain.leaf), holder=known[-1].holder, status="revoked")
                registration = Registration(links=(ended,), statements=_statements(chain, texts))
                await self._store.add_signed(registration, lambda _: event)
        except SignatureRefused:  # an id of the chain is another link's
            return
        except Conflict:  # it was redeemed at this moment, or what it stands on has ended
            pass
        if await self._is(leaf, chain.leaf):
            await self._store.revoke("link", leaf, event)

    async def _is(self, name: LinkId, signed: SignedLink) -> bool:
        """Whether the store's link of this id is the one that was signed, or that a root renders."""
        link = await self._store.link(name)
        return link is not None and (signed.parent is None or link.statement == signed.digest)

    async def _known(self, chain: SignedChain) -> tuple[Link, ...]:
        """The links of the chain that the store has, root first.

        They are read from the leaf upwards: what another request registers meanwhile is seen whole, or not at all.
        """
        found = [await self._store.link(ids.link_id(signed.id)) for signed in reversed(chain.links)][::-1]
        for link, signed in zip(found[1:], chain.links[1:], strict=True):
            if link is not None and link.statement != signed.digest:
                raise SignatureRefused(f"there is a link `{link.id}` that says something else")
        if any(link is not None and link.status != "active" for link in found):
            raise Conflict("a link of the chain was revoked")
        return tuple(link for link in takewhile(lambda one: one is not None, found) if link is not None)

    async def _standing(self, chain: SignedChain, known: Sequence[Link]) -> Source:
        """What the chain's known links stand on, once all of it is known to hold."""
        root = chain.links[0]
        key = await self._store.key(Thumbprint(root.holder.thumbprint))
        if key is None or not known or key.holder != f"agent:{known[0].holder}":
            raise SignatureRefused("the first link is not one that this gateway has, or not its holder's")
        leaf, named = known[-1], await self._store.session(SessionId(root.session))
        subject = None if named is None else named.subject
        standing = await self._store.standing(agent=leaf.holder, key=key.thumbprint, person=subject, link=leaf.id)
        session, grant = standing.session, standing.grant
        if session is None or grant is None or session.id != root.session:
            raise SignatureRefused("the first link belongs to no session of this gateway")
        if is_over(session, self._clock()):
            raise Conflict("the session has ended")
        try:
            require_answerable(standing, session)
            above = chain_of(standing, session, grant, self._clock())
            await self.signatures.require(above.links)
        except TokenRefused as error:
            raise Conflict(f"what the chain stands on does not hold: {error}") from None
        shown = grant.authentication
        return Source(chain=above, session=session, person=standing.person, authentication=shown)

    async def _require_signer(self, delegator: AgentName, signed: SignedLink) -> None:
        """A key that a rotation replaced signs nothing new: what it signed before is taken for a short while.

        Whoever has the old key can write an earlier time into what it signs, so that while is all that tells them
        apart. A key that left a document elsewhere has none: when it left is not known, nor that it was by rotation.
        """
        agent = await self._store.agent(delegator)
        held = () if agent is None else await self._agent_keys(agent)
        key = next((one for one in held if one.thumbprint == signed.signer.thumbprint), None)
        if agent is None or key is None or not key.proved or key.status != "active":
            raise SignatureRefused(f"a link is signed by a key that is not agent `{delegator}`'s, or was revoked")
        if key.retires_at is None:
            return
        later = [one.added_at for one in held if one.added_at > key.added_at]
        replaced_at = min(later, default=key.added_at)
        ends_at = min(key.retires_at, replaced_at + limits.LINK_OVERLAP)
        if agent.metadata_url is not None or self._clock() >= ends_at or signed.issued_at > replaced_at:
            raise SignatureRefused(f"a link is signed by a key that agent `{delegator}` has replaced")

    async def _holder(self, delegator: AgentName, signed: SignedLink) -> tuple[Agent, Key | None]:
        """Who the link was given to; a child of the delegator comes with the key that it has from now on."""
        known = await self._proved(Thumbprint(signed.holder.thumbprint))
        if known is None and not signed.child:
            raise SignatureRefused(
                "a link is given to a key that no agent has signed in with; name it as a child, or enrol the agent"
            )
        if known is not None:
            agent = await self._store.agent(AgentName(known.holder.removeprefix("agent:")))
            held = () if agent is None else await self._agent_keys(agent)
            known = next((one for one in held if one.thumbprint == known.thumbprint), None)
            own = "" if agent is None else agent.name.partition("/")[2]
            if agent is None or known is None or known.status != "active" or signed.child not in ("", own):
                raise SignatureRefused("a link is given to a key that is revoked, or no agent's, or another's")
            if known.retires_at is not None and self._clock() >= known.retires_at:
                raise SignatureRefused(f"a link is given to a key that agent `{agent.name}` has replaced")
            if agent.parent != delegator:
                return agent, None
        return await self._child(delegator, signed, known)

    async def _proved(self, thumbprint: Thumbprint) -> Key | None:
        """The key, if it is known whose it is; what a document declares says nothing of who has the key."""
        known = await self._store.key(thumbprint)
        return known if known is not None and known.proved else None

    async def _stored_keys(self, agent: Agent) -> tuple[Key, ...]:
        return await self._store.keys_of(f"agent:{agent.name}")

    async def _child(self, delegator: AgentName, signed: SignedLink, known: Key | None) -> tuple[Agent, Key]:
        """The child that this link names, as its parent is now."""
        parent = await self._store.agent(delegator)
        if parent is None or parent.parent is not None:
            raise DelegationError(f"agent `{delegator}` is a child itself and names no others")
        name = AgentName(f"{delegator}/{signed.child}" if known is None else known.holder.removeprefix("agent:"))
        child = Agent(
            name=name,
            owner=parent.owner,
            labels=parent.labels,
            ceiling=parent.ceiling,
            parent=parent.name,
            ends_at=signed.expires_at,
        )
        thumbprint = Thumbprint(signed.holder.thumbprint)  # since when the parent gave it, not since it was shown
        key = Key(thumbprint=thumbprint, holder=f"agent:{name}", raw=signed.holder.raw, added_at=signed.issued_at)
        return child, key

    async def _register(
        self,
        source: Source,
        new: Sequence[Link],
        children: tuple[tuple[Agent, Key], ...],
        statements: tuple[Statement, ...],
    ) -> None:
        holders = {link.id: link.holder for link in source.chain.links}

        def event_for(one: Link | Key) -> Event:
            if isinstance(one, Key):
                return _enrolled(one, source.session, self._clock())
            return made(source.session, holders[one.parent or one.id], one, at=self._clock())

        registration = Registration(links=tuple(new), statements=statements, children=children)
        await self._store.add_signed(registration, event_for)


def _statements(chain: SignedChain, texts: Sequence[str]) -> tuple[Statement, ...]:
    above = (None, *(link.digest for link in chain.links))
    return tuple(
        Statement(digest=link.digest, above=before, text=text)
        for before, link, text in zip(above, chain.links, texts, strict=False)
    )


def is_signed_for(link: Link, key: Key) -> bool:
    """Whether the link was signed for this key: then what was signed is all that its holder can be given of it."""
    return link.statement is not None and link.holder_key == key.thumbprint


def revoked(link: LinkId, by: AgentName, at: datetime) -> Event:
    """The record of a link that one of its holders ended."""
    summary = f"link {link} revoked by {by} at the authorization server"
    fields = {"summary": summary, "by": f"agent:{by}", "of": "link", "name": link, "reason": "no longer needed"}
    return Event(kind="revocation", at=at, fields=fields)


def _enrolled(key: Key, session: Session, at: datetime) -> Event:
    name = key.holder.removeprefix("agent:")
    parent = name.partition("/")[0]
    summary = f"agent {name} enrolled by a link of {parent}"
    fields = {"agent": key.holder, "key": key.thumbprint, "session": session.id, "by": f"agent:{parent}"}
    return Event(kind="enrolment", at=at, fields={"summary": summary, **fields})


def _link(parent: Link, signed: SignedLink) -> Link:
    """The link as the store has it; whose it is, is looked up by its key."""
    depth = parent.depth + 1
    return Link(
        id=ids.link_id(signed.id),
        session=parent.session,
        parent=parent.id,
        holder=AgentName(signed.child or signed.holder.thumbprint),
        scope=signed.scope,
        tools=signed.tools,
        depth=depth,
        max_depth=depth + signed.max_depth - signed.depth,
        issued_at=signed.issued_at,
        expires_at=signed.expires_at,
        max_calls=signed.max_calls,
        reason=signed.reason,
        holder_key=Thumbprint(signed.holder.thumbprint),
        signed_by=Thumbprint(signed.signer.thumbprint),
        statement=signed.digest,
    )


def _whole(at: datetime) -> datetime:
    """The second that a JWT says of this time; a root may say less than its link has, never more."""
    return at.replace(microsecond=0)
