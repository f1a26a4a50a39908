"""The bundle of one call: its records, those that say who may, and what was signed; public keys verify it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.audit_excerpts import excerpt_of
from mcp_authz.audit_reading import newest
from mcp_authz.model import HeldCall, HoldId
from mcp_authz.principals import LinkId, PersonName, SessionId, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.keys import PublicKey, b64url
from mcp_authz.shredding import of_calls
from mcp_authz.store.ports import Clock, Record, Store
from mcp_authz.verdict_bundles import export_bundle, verdict_key

_MOST: Final = 100  # records of one kind beside those of the call


async def bundle_of(
    store: Store, clock: Clock, records: Sequence[Record], *, gateway: str, with_arguments: bool
) -> dict[str, Any]:
    """Return an excerpt of the log with the call's records, those that they stand on, and the evidence.

    Argument values are in it only `with_arguments`: as the caller signed them, and as approvers were shown them.
    """
    chains = await _chains(store, records)
    verdicts = await _verdicts(store, records)
    calls = await _calls(store, records) if with_arguments else ()
    held = [one for one in await _held(store, records) if _can_be_shown(one, records)]
    passkeys = await _passkeys(store, records, verdicts)
    signers = {str(one.event.fields["signed_by"]) for one in records if "signed_by" in one.event.fields}
    if not verdicts:
        signers = set()
    if calls:
        signers |= {str(one.event.fields["key"]) for one in records if "proof_digest" in one.event.fields}
    shown = [await export_bundle(store, clock, one, gateway=gateway) for one in held] if with_arguments else []
    evidence: dict[str, Any] = {
        "links": [list(chain) for chain in chains],
        "calls": list(calls),
        "verdicts": list(verdicts),
        "shown": shown,
        "passkeys": {b64url(credential): b64url(public) for credential, public in passkeys.items()},
        "keys": [key.jwk for key in await _keys(store, signers, chains)],
    }
    roots = _roots(chains)
    own = signers & {(await verdict_key(store)).public.thumbprint}
    further = [*await _standing_on(store, records, signers, passkeys), *await _gateways(store, roots | own)]
    every = {record.sequence: record for record in (*records, *further)}
    return await excerpt_of(store, [every[one] for one in sorted(every)], gateway=gateway, evidence=evidence)


async def _chains(store: Store, records: Iterable[Record]) -> list[tuple[str, ...]]:
    """The signed links of the chains that the calls were made by, root to leaf; a gateway's own hand signs none."""
    found: dict[bytes, tuple[str, ...]] = {}
    for record in records:
        for id_ in reversed(record.event.fields.get("links") or ()):
            link = await store.link(LinkId(str(id_)))
            if link is not None and link.statement is not None:
                kept = await store.statements(link.statement)
                found[link.statement] = tuple(one.text for one in kept)
                break
    return [chain for chain in found.values() if chain]


async def _calls(store: Store, records: Iterable[Record]) -> tuple[str, ...]:
    return tuple(text for text in await store.signed(sorted(of_calls(records).proofs)) if text is not None)


async def _verdicts(store: Store, records: Iterable[Record]) -> tuple[str, ...]:
    names = {
        str(one.event.fields["statement"])
        for one in records
        if one.event.kind == "approval" and "statement" in one.event.fields
    }
    return tuple(text for text in await store.signed(sorted(names)) if text is not None)


async def _held(store: Store, records: Iterable[Record]) -> list[HeldCall]:
    found = [await store.hold(HoldId(hold)) for hold in sorted(of_calls(records).holds)]
    return [held for held in found if held is not None]


def _can_be_shown(held: HeldCall, records: Iterable[Record]) -> bool:
    """Whether somebody answered the call, and neither it was shredded since nor a record of an answer was pruned."""
    named = {record.event.fields.get("statement") for record in records if record.event.kind == "approval"}
    names = [{one.statement, name_of(one.statement)} for one in held.verdicts]
    return bool(names) and held.shredded_at is None and all(both & named for both in names)


async def _passkeys(store: Store, records: Iterable[Record], verdicts: Iterable[str]) -> dict[bytes, bytes]:
    """The public keys of the passkeys that answered; what else a person has is nobody's business."""
    proofs = [jose.read(text).claims.get("proof") for text in verdicts]
    used = {str(proof.get("credential")) for proof in proofs if isinstance(proof, dict)}
    people = {
        str(one.event.fields.get("person", "")).removeprefix("user:") for one in records if one.event.kind == "approval"
    }
    known = [one for person in sorted(people) for one in await store.passkeys_of(PersonName(person))]
    return {one.credential: one.public_key for one in known if b64url(one.credential) in used}


async def _keys(store: Store, signers: Iterable[str], chains: Iterable[Sequence[str]]) -> list[PublicKey]:
    """The public keys with these thumbprints, and those of the gateway that the chains begin with."""
    wanted = {*signers, *_roots(chains)}
    own = [(await verdict_key(store)).public]
    own += [PublicKey.from_raw(one.public) for one in await store.signing_keys("issuer") if one.public is not None]
    found = {key.thumbprint: key for key in own if key.thumbprint in wanted}
    for thumbprint in sorted(wanted - set(found)):
        key = await store.key(Thumbprint(thumbprint))
        if key is not None:
            found[thumbprint] = PublicKey.from_raw(key.raw)
    return list(found.values())


async def _standing_on(
    store: Store, records: Iterable[Record], signers: Iterable[str], passkeys: Iterable[bytes]
) -> list[Record]:
    """The records of the grant, session and delegations of these calls, and of the enrolment of who signed."""
    fields = [record.event.fields for record in records]
    sessions = {str(one["session"]) for one in fields if one.get("session")}
    links = {str(link) for one in fields for link in one.get("links") or ()}
    found: list[Record] = []
    for id_ in sorted(sessions):
        found += await newest(store, Filter(kind="session", session=id_), _MOST)
        made = await newest(store, Filter(kind="delegation", session=id_), _MOST)
        found += [one for one in made if one.event.fields.get("link") in links]
        session = await store.session(SessionId(id_))
        if session is not None:
            found += await newest(store, Filter(kind="grant", text=str(session.grant)), _MOST)
    signed_with = {*signers, *(str(one["key"]) for one in fields if one.get("key")), *map(b64url, passkeys)}
    signed_with |= {str(one.event.fields.get("delegator_key")) for one in found} - {"None"}
    for name in sorted(signed_with):
        found += [one for one in await newest(store, Filter(kind="enrolment", text=name), _MOST) if _binds(one, name)][
            -1:
        ]
    return found


def _roots(chains: Iterable[Sequence[str]]) -> set[str]:
    """The keys of the gateway that the chains begin with."""
    return {str(jose.read(chain[0], max_depth=limits.LINK_JSON_DEPTH).kid) for chain in chains}


async def _gateways(store: Store, roots: Iterable[str]) -> list[Record]:
    """The records by which these keys are the gateway's own."""
    found = [await newest(store, Filter(kind="administration", text=key), _MOST) for key in sorted(roots)]
    named = zip(sorted(roots), found, strict=True)
    return [one for key, records in named for one in records if one.event.fields.get("key") == key]


def _binds(record: Record, name: str) -> bool:
    """Whether the record gives this key, or passkey, to somebody."""
    f = record.event.fields
    return name in {f.get("key"), f.get("passkey"), *(f.get("keys") or ())} and f.get("decision") != "deny"
