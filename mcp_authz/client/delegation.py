"""Delegating offline: whoever holds the last link of a chain signs the next one with its own key, and asks nobody.

    text = delegate(chain, key, to=coder.public, scope="pr:write", lifetime=timedelta(minutes=10))

What the gateway has to say about it (who may delegate to whom, policy, revocation) it says when the chain is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from mcp_authz import limits
from mcp_authz.errors import DelegationError
from mcp_authz.ids import new_uuid7
from mcp_authz.rules.constraint import ToolsMap, narrows
from mcp_authz.rules.constraint_words import words
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.scope import Scope, covered, parse_scopes
from mcp_authz.rules.signed_link import (
    Given,
    Purpose,
    SignedLink,
    derive,
    parse_chain,
    read_issuer,
    read_purpose,
    read_unverified,
    verify_derived,
    verify_signatures,
    write_chain,
)

LIFETIME: Final = limits.DELEGATION_LIFETIME
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a chain says, root to leaf, once its signatures were looked at."""

    issuer: str  # the gateway that the first link says it is of
    purpose: Purpose
    links: tuple[SignedLink, ...]
    verified: Literal["all", "derived"]  # `derived`: all but the first link, which is believed

    @property
    def leaf(self) -> SignedLink:
        """The last link: what whoever presents the chain has."""
        return self.links[-1]


def delegate(
    chain: str | Sequence[str],
    key: PrivateKey,
    *,
    to: PublicKey,
    child: str = "",
    scope: str | frozenset[Scope] | None = None,
    tools: ToolsMap | None = None,
    lifetime: timedelta = LIFETIME,
    max_calls: int | None = None,
    depth: int = 0,
    reason: str = "",
    at: datetime | None = None,
) -> str:
    """Return the text of the chain with one more link, by which the holder of `key` gives some of it to `to`.

    What is not given is as in the last link. `depth` is how many further steps the delegate may make, `child` the name
    of a delegate that is no agent yet (`worker-7`). The link ends with the last one at the latest. Times are whole
    seconds; `at` is now unless a test says otherwise.

    Raises:
        DelegationError: it would give more than the last link has, which may have ended; or the key is
            not its holder's.
        ScopeError, SignatureRefused: the scope or the chain cannot be read.
    """
    links = _links(chain)
    parent = read_unverified(links)[-1]
    now = (datetime.now(UTC) if at is None else at).replace(microsecond=0)
    begins_at = max(now, parent.issued_at)  # our clock may be behind the one by which the parent was issued
    given = Given(
        id=new_uuid7(now),
        holder=to,
        scope=_scope(parent, scope),
        tools=_tools(parent, tools),
        max_depth=_depth(parent, depth),
        issued_at=begins_at,
        expires_at=_end(parent, begins_at, lifetime),
        max_calls=_calls(parent, max_calls),
        reason=_reason(reason),
        child=child,
    )
    return write_chain([*links, derive(links, given, key=key)])


def describe(chain: str | Sequence[str], keys: Mapping[str, PublicKey] | None = None) -> Description:
    """Return what the chain says, once every link is known to be signed by the holder of the one before.

    `keys` are the gateway's own, by thumbprint; without them the first link is believed. Whether the chain still holds
    is not asked.

    Raises:
        SignatureRefused: a link is malformed, or not signed by whom it should be.
        DelegationError: something grew along the chain.
    """
    links = _links(chain)
    issuer = read_issuer(links)
    if keys is None:
        return Description(issuer=issuer, purpose=read_purpose(links), links=verify_derived(links), verified="derived")
    found = verify_signatures(links, issuer=issuer, keys=keys)
    return Description(issuer=issuer, purpose=found.purpose, links=found.links, verified="all")


def _links(chain: str | Sequence[str]) -> tuple[str, ...]:
    return parse_chain(chain if isinstance(chain, str) else write_chain(chain))


def _scope(parent: SignedLink, scope: str | frozenset[Scope] | None) -> frozenset[Scope]:
    if scope is None:
        return parent.scope
    asked = parse_scopes(" ".join(scope.split()) if isinstance(scope, str) else scope)
    if not asked:
        raise DelegationError("a link without a scope permits nothing; name at least one")
    for one in sorted(asked):
        if not covered(one, parent.scope):
            raise DelegationError(f"scope `{one}` is not in the chain, which has: {' '.join(sorted(parent.scope))}")
    return asked


def _tools(parent: SignedLink, tools: ToolsMap | None) -> ToolsMap | None:
    if tools is None:
        return parent.tools
    for tool in sorted(tools):
        if parent.tools is not None and tool not in parent.tools:
            has = ", ".join(f"`{one}`" for one in sorted(parent.tools)) or "none"
            raise DelegationError(f"tool `{tool}` is not in the chain, which has {has}")
        for name, asked in tools[tool].items():
            had = (parent.tools or {}).get(tool, {}).get(name)
            if had is not None and not narrows(asked, had):
                more = f"argument `{name}` of `{tool}` {words(asked)}"
                raise DelegationError(f"{more}: that is not within what the chain says, `{words(had)}`")
    return tools


def _depth(parent: SignedLink, further: int) -> int:
    left = parent.max_depth - parent.depth
    if further < 0:
        raise DelegationError("the depth is how many further steps there may be: 0 or more")
    if left < 1:
        raise DelegationError("the chain may not be delegated further; ask for one that is given with more depth")
    if further >= left:
        raise DelegationError(f"the delegate cannot make {further} further steps; {left - 1} at most are left")
    return parent.depth + 1 + further


def _end(parent: SignedLink, begins_at: datetime, lifetime: timedelta) -> datetime:
    if parent.expires_at <= begins_at:
        raise DelegationError(f"the chain ended at {parent.expires_at:%Y-%m-%d %H:%M:%S} UTC; get a new one")
    if lifetime < _SECOND:
        raise DelegationError("a link lives for a second at least")
    return min((begins_at + lifetime).replace(microsecond=0), parent.expires_at)


def _calls(parent: SignedLink, max_calls: int | None) -> int | None:
    if max_calls is None:
        return parent.max_calls
    if max_calls < 1:
        raise DelegationError("a link is for one call at least")
    if parent.max_calls is not None and max_calls > parent.max_calls:
        raise DelegationError(f"the chain is for {parent.max_calls} calls; no link of it is for {max_calls}")
    return max_calls


def _reason(reason: str) -> str:
    if len(reason) > limits.PURPOSE:
        raise DelegationError(f"the reason is longer than {limits.PURPOSE} characters; shorten it")
    return reason
