"""Verdict bundles in use: everything that a hold's verdicts take to be verified elsewhere, collected and signed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from mcp_authz import views
from mcp_authz.errors import Conflict
from mcp_authz.model import HeldCall, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.hold import counts_for
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, random_bytes
from mcp_authz.rules.verdict_bundle import Given, Keys, jwk, make_bundle
from mcp_authz.store.ports import Clock, Event, Record, Store


async def verdict_key(store: Store) -> PrivateKey:
    """The key by which the gateway signs verdicts that nobody signs themselves; the same for every process.

    The first call makes it, on record like the first key of any other use.
    """

    return PrivateKey.from_seed(await store.secret("verdict-key", lambda: random_bytes(32), _made))


def _made(seed: bytes, at: datetime) -> Event:
    key = PrivateKey.from_seed(seed).public.thumbprint
    fields = {"summary": "the verdict key of this gateway", "by": "gateway", "use": "verdict", "key": key}
    return Event(kind="administration", at=at, fields=fields)


def approval_keys(key: PublicKey) -> dict[str, Any]:
    """The JWK Set (RFC 7517 section 5) at which others find the key of verdicts."""
    return {"keys": [jwk(key)]}


async def export_bundle(store: Store, clock: Clock, held: HeldCall, *, gateway: str) -> dict[str, Any]:
    """The bundle of this hold as it stands; `gateway` is the public URL.

    Raises:
        Conflict: what it would have to show was shredded.
    """
    if held.shredded_at is not None:
        raise Conflict(f"the arguments and verdicts of hold `{held.id}` were shredded on {held.shredded_at:%Y-%m-%d}")
    key, records = await verdict_key(store), await store.records(call=held.id)
    people = {verdict.person for verdict in held.verdicts}
    return make_bundle(
        held,
        [await _given(store, held, verdict, records) for verdict in held.verdicts],
        keys=Keys(
            gateway=key.public, approvers=await _signers(store, held), passkeys=await _passkeys(store, held, people)
        ),
        gateway=gateway,
        records=[views.record(record) for record in records],
        key=key,
        at=clock(),
    )


async def _given(store: Store, held: HeldCall, verdict: Verdict, records: Iterable[Record]) -> Given:
    """The verdict with the rules that it met when it was given; where no record says so, that it would meet now."""
    pattern = None
    if verdict.standing is not None and (standing := await store.standing_approval(verdict.standing)) is not None:
        pattern = standing.terms.pattern.to_json()
    for record in records:
        fields = record.event.fields
        if fields.get("statement") in {name_of(verdict.statement), verdict.statement} and "meets" in fields:
            return Given(verdict=verdict, meets=tuple(fields["meets"]), pattern=pattern)
    who = await store.person(verdict.person)
    meets = () if who is None else tuple(rule.name for rule in held.rules if counts_for(verdict, who, held, rule))
    return Given(verdict=verdict, meets=meets, pattern=pattern)


async def _signers(store: Store, held: HeldCall) -> Mapping[PersonName, tuple[PublicKey, ...]]:
    """The keys that people signed with, revoked by now or not."""
    signers = dict[PersonName, tuple[PublicKey, ...]]()
    for verdict in held.verdicts:
        known = [one for one in await store.keys_of(f"user:{verdict.person}") if one.thumbprint == verdict.signed_by]
        if known:
            signers[verdict.person] = tuple(PublicKey.from_raw(one.raw) for one in known)
    return signers


async def _passkeys(store: Store, held: HeldCall, people: Iterable[PersonName]) -> Mapping[bytes, bytes]:
    """The public keys of the passkeys that answered; what else a person has is nobody's business."""
    proofs = (jose.read(verdict.statement).claims.get("proof") for verdict in held.verdicts)
    used = {str(proof.get("credential")) for proof in proofs if isinstance(proof, dict)}
    known = [one for person in sorted(people) for one in await store.passkeys_of(person)]
    return {one.credential: one.public_key for one in known if b64url(one.credential) in used}
