"""What proof costs: a call under 1, 2, 4 and 8 signed links, verified for the first time and again; DPoP; call proofs.

Everything is measured in one process on one gateway with its store on disk. The standing of every link, grant, key,
agent and person is read at each use, warm or cold: what is remembered is only that immutable bytes were verified.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

from bench.governed import OPERATOR, SCOPE
from bench.house import House
from bench.timing import timed
from bench.wire import ARGUMENTS
from mcp_authz.agents import Agents
from mcp_authz.ids import new_id, new_uuid7
from mcp_authz.installation import utc_now
from mcp_authz.principals import AccessToken, AgentName, Chain, Link, Proof, Session, Thumbprint
from mcp_authz.rules import dpop
from mcp_authz.rules.call_proof import Proved, prove_call, read_call_proof
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, derive, read_unverified, verify_signatures

LENGTHS: Final = (1, 2, 4, 8)

Step = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A chain of one length, and the token of its leaf's holder."""

    texts: tuple[str, ...]
    token: AccessToken


async def proofs(house: House, calls: int) -> list[tuple[str, float]]:
    """Name and microseconds of each, in the order of the road."""
    keys = [PrivateKey.generate() for _ in range(LENGTHS[-1])]
    await _enrol(house, keys)
    measured: list[tuple[str, float]] = []
    for length in LENGTHS:
        held = await _held(house, keys[:length])
        links = "1 link" if length == 1 else f"{length} links"
        for name, step in _of_chain(house, held).items():
            measured.append((f"{links}: {name}", await timed(step, calls)))
    measured += [(name, await timed(step, calls)) for name, step in _of_proofs(keys[0]).items()]
    return measured


def _of_chain(house: House, held: Held) -> dict[str, Step]:
    sessions, signatures = house.running.sessions, house.running.chains.signatures
    config = house.running.installation.config

    async def verified() -> None:
        verify_signatures(held.texts, issuer=config.public_url, keys=house.issuer.public)

    async def cold() -> None:
        signatures.forget()
        await sessions.identify(held.token, Proof.BEARER)

    async def warm() -> None:
        await sessions.identify(held.token, Proof.BEARER)

    return {
        "every signature, by itself": verified,
        "standing, signatures verified for the first time": cold,
        "standing, signatures verified before": warm,
    }


def _of_proofs(key: PrivateKey) -> dict[str, Step]:
    at, url = utc_now(), "http://localhost:8642/mcp"
    call = Proved(link=new_uuid7(at), tool="bench__look_up", arguments=ARGUMENTS, audience=url)
    signed = prove_call(call, id="j", at=at, key=key)
    shown = dpop.make_proof(key, method="POST", url=url, at=at, id="j", access_token="t")  # noqa: S106 - no secret

    async def made() -> None:
        prove_call(call, id="j", at=at, key=key)

    async def read() -> None:
        read_call_proof(signed, call, holder=key.public, now=at)

    async def showed() -> None:
        dpop.make_proof(key, method="POST", url=url, at=at, id="j", access_token="t")  # noqa: S106 - no secret

    async def saw() -> None:
        dpop.read_proof(shown, method="POST", url=url, now=at, access_token="t", nonces=None)  # noqa: S106 - no secret

    return {
        "call proof, made by the agent": made,
        "call proof, verified": read,
        "DPoP proof (Ed25519), made by the agent": showed,
        "DPoP proof (Ed25519), verified": saw,
    }


async def _enrol(house: House, keys: list[PrivateKey]) -> None:
    """As many agents as the longest chain has links, each of which may delegate to the next."""
    agents = Agents(house.running.installation.store, utc_now)
    for number, key in enumerate(keys):
        await agents.add(
            f"a{number}",
            owner="alice",
            key=key.public,
            ceiling=parse_scopes(SCOPE),
            depth=len(keys) - 1 - number,
            delegates_to=frozenset({AgentName(f"a{number + 1}")}),
            by=OPERATOR,
        )
    await house.running.sessions.grant("alice", "a0", scope=parse_scopes(SCOPE), by=OPERATOR)


async def _held(house: House, keys: list[PrivateKey]) -> Held:
    """A session of its own whose authority was delegated to the last of these keys, step by step."""
    running = house.running
    session, link = await running.sessions.start(
        await running.sessions.only_grant("alice", "a0"), purpose="bench", by=OPERATOR
    )
    key = await running.installation.store.key(Thumbprint(keys[0].public.thumbprint))
    assert key is not None
    texts = await running.chains.root(link, session, Chain(links=(link,)), key)
    for before, holder in pairwise(keys):
        last = read_unverified(texts)[-1]
        given = Given(
            id=new_uuid7(utc_now()),
            holder=holder.public,
            scope=last.scope,
            tools=last.tools,
            max_depth=last.max_depth,
            issued_at=last.issued_at,
            expires_at=last.expires_at,
        )
        texts = (*texts, derive(texts, given, key=before))
    if len(keys) > 1:
        chain = running.chains.verify(texts, Thumbprint(keys[-1].public.thumbprint))
        session, link = await running.chains.redeem(chain, texts)
    return Held(texts=texts, token=_token(session, link, keys[-1]))


def _token(session: Session, link: Link, key: PrivateKey) -> AccessToken:
    now = utc_now()
    return AccessToken(
        id=new_id("t"),
        client_id=link.holder,
        actor=link.holder,
        key=Thumbprint(key.public.thumbprint),
        subject=session.principal,
        session=session.id,
        link=link.id,
        scope=parse_scopes(SCOPE),
        issued_at=now,
        expires_at=now + timedelta(minutes=10),
    )
