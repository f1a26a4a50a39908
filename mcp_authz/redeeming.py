"""Signed chains at the gateway: what a delegator signed becomes links of the store, and a link becomes a signed root.

A root is a rendering of a stored link for one key of its holder: the same link, under the same id. What is derived from
it hangs below that link, so that neither depth nor lifetime, constraints or budget begin anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from mcp_authz.delegating import Delegations, Source, made, refused
from mcp_authz.errors import DelegationError, InputError, SignatureRefused
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.model import Agent, AgentName, Chain, Key, Link, Person, PersonName, Session, Thumbprint
from mcp_authz.rules import link_id as ids
from mcp_authz.rules.delegation import verify_chain
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.signed_link import Given, Purpose, SignedChain, SignedLink, sign_root, verify_links
from mcp_authz.signatures import Signatures
from mcp_authz.store.ports import Clock, Registration, Statement, Store


class Chains:
    """Takes signed chains in, and gives signed roots out."""

    def __init__(self, *, store: Store, clock: Clock, issuer: str, keys: IssuerKeys, delegations: Delegations) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._keys = keys
        self._delegations = delegations
        self.signatures = Signatures(store=store, issuer=issuer, keys=keys.public)

    async def root(self, leaf: Link, session: Session, chain: Chain, key: Key) -> tuple[str, ...]:
        """Return the signed chain from which the holder of `leaf` delegates with this key.

        A link that was signed for the key is given back with those above it; any other is rendered as a root.

        Raises:
            InputError: the link is older than links that can be signed.
        """
        if leaf.statement is not None and leaf.holder_key == key.thumbprint:
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
        return verify_links(texts, issuer=self._issuer, keys=self._keys.public, presenter=presenter, now=self._clock())

    async def redeem(self, chain: SignedChain, texts: Sequence[str]) -> tuple[Session, Link]:
        """Return session and link of the chain's leaf; links, statements and children that were not there are.

        Raises:
            SignatureRefused: the root is not what the store has, or a key is not whose it should be.
            DelegationError: a step may not be made, or what the chain stands on has ended.
            Conflict: something ended, or was taken, at this very moment.
        """
        source = await self._above(chain.links[0])
        new, children = list[Link](), dict[AgentName, tuple[Agent, Key]]()
        for parent, signed in zip(chain.links, chain.links[1:], strict=False):
            known = await self._store.link(ids.link_id(signed.id))
            if known is not None:
                source = await self._known(source, known, signed)
                continue
            link = _link(source.chain.leaf, signed)
            try:
                await self._require_signer(source.chain.leaf.holder, parent.holder, signed)
                holder, key = await self._holder(source.chain.leaf.holder, signed, children)
                link = replace(link, holder=holder.name)
                await self._delegations.require(replace(source, key=link.signed_by), holder, link)
            except (DelegationError, SignatureRefused, InputError) as error:
                await self._store.append(refused(source.session, source.chain.leaf.holder, link, error))
                raise
            if key is not None:
                children[holder.name] = (holder, key)
            new.append(link)
            source = replace(source, chain=Chain(links=(*source.chain.links, link)))
        if new:
            await self._register(source, new, tuple(children.values()), chain, texts)
        return source.session, source.chain.leaf

    async def _above(self, root: SignedLink) -> Source:
        """What the root's own link stands on, once all of it is known to hold."""
        key = await self._store.key(Thumbprint(root.holder.thumbprint))
        link = await self._store.link(ids.link_id(root.id))
        if key is None or link is None or key.holder != f"agent:{link.holder}":
            raise SignatureRefused("the first link is not one that this gateway has, or not its holder's")
        standing = await self._store.standing(agent=link.holder, key=key.thumbprint, person=None, link=link.id)
        session, grant = standing.session, standing.grant
        if session is None or grant is None or session.id != root.session:
            raise SignatureRefused("the first link belongs to no session of this gateway")
        chain = verify_chain(standing.links, session=session, grant=grant, holders=standing.holders, at=self._clock())
        await self.signatures.require(chain.links)
        person = None if session.subject is None else await self._person(session.subject)
        return Source(chain=chain, session=session, person=person)

    async def _person(self, name: PersonName) -> Person:
        person = await self._store.person(name)
        if person is None or person.status != "active":
            raise DelegationError(f"person `{name}` is not active")
        return person

    async def _known(self, source: Source, link: Link, signed: SignedLink) -> Source:
        if link.statement != signed.digest or link.parent != source.chain.leaf.id:
            raise SignatureRefused(f"there is a link `{link.id}` that says something else")
        if link.status != "active":
            raise DelegationError(f"link `{link.id}` has ended")
        return replace(source, chain=Chain(links=(*source.chain.links, link)))

    async def _require_signer(self, delegator: AgentName, signer: PublicKey, signed: SignedLink) -> None:
        """A key that a rotation replaced signs nothing new: what it signed before counts until the overlap is over."""
        held = await self._store.keys_of(f"agent:{delegator}")
        key = next((one for one in held if one.thumbprint == signer.thumbprint), None)
        if key is None or key.status != "active":
            raise SignatureRefused(f"a link is signed by a key that is not agent `{delegator}`'s, or was revoked")
        if key.retires_at is None:
            return
        replaced_at = max(one.added_at for one in held)
        if self._clock() >= key.retires_at or signed.issued_at > replaced_at:
            raise SignatureRefused(f"a link is signed by a key that agent `{delegator}` has replaced")

    async def _holder(
        self, delegator: AgentName, signed: SignedLink, children: dict[AgentName, tuple[Agent, Key]]
    ) -> tuple[Agent, Key | None]:
        """Who the link was given to; a child that is nobody yet comes with the key that it will have."""
        thumbprint = Thumbprint(signed.holder.thumbprint)
        known = await self._store.key(thumbprint)
        name = AgentName(f"{delegator}/{signed.child}")
        if known is not None:
            agent = await self._store.agent(AgentName(known.holder.removeprefix("agent:")))
            if agent is None or known.status != "active" or (signed.child and agent.name != name):
                raise SignatureRefused("a link is given to a key that is revoked, or no agent's, or another's")
            if known.retires_at is not None and self._clock() >= known.retires_at:
                raise SignatureRefused(f"a link is given to a key that agent `{agent.name}` has replaced")
            return agent, None
        if not signed.child:
            raise SignatureRefused("a link is given to a key that no agent has; name it as a child, or enrol the agent")
        parent = await self._store.agent(delegator)
        if parent is None or parent.parent is not None or delegator in children:
            raise DelegationError(f"agent `{delegator}` is a child itself and names no others")
        child = Agent(
            name=name,
            owner=parent.owner,
            labels=parent.labels,
            ceiling=parent.ceiling,
            parent=parent.name,
            ends_at=signed.expires_at,
        )
        key = Key(thumbprint=thumbprint, holder=f"agent:{name}", raw=signed.holder.raw, added_at=self._clock())
        return child, key

    async def _register(
        self,
        source: Source,
        new: Sequence[Link],
        children: tuple[tuple[Agent, Key], ...],
        chain: SignedChain,
        texts: Sequence[str],
    ) -> None:
        above: bytes | None = None
        statements = list[Statement]()
        for signed, text in zip(chain.links, texts, strict=True):
            statements.append(Statement(digest=signed.digest, above=above, text=text))
            above = signed.digest
        holders = {link.id: link.holder for link in source.chain.links}
        events = [made(source.session, holders[link.parent], link) for link in new if link.parent is not None]
        registration = Registration(links=tuple(new), statements=tuple(statements), children=children)
        await self._store.add_signed(registration, events)


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
