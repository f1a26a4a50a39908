"""What has argument values, shredded: once its time is up, or at once where an operator says so."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import anyio

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HoldId
from mcp_authz.store.evidence_port import Before, OfCalls, Shredded
from mcp_authz.store.ports import Event, Record, Store

_EVERY: Final = limits.SHREDDING.total_seconds()

log = logging.getLogger(__name__)


def of_calls(records: Iterable[Record]) -> OfCalls:
    """What the calls of these records have that argument values are in."""
    holds, sequences, proofs = set[HoldId](), set[int](), set[str]()
    for record in records:
        fields = record.event.fields
        if record.event.kind == "decision":
            sequences.add(record.sequence)
        if "proof_digest" in fields:
            proofs.add(str(fields["proof_digest"]))
        approval = fields.get("approval")
        for hold in (fields.get("hold"), approval.get("hold") if isinstance(approval, dict) else None):
            if hold is not None:
                holds.add(HoldId(str(hold)))
    return OfCalls(holds=frozenset(holds), sequences=frozenset(sequences), proofs=frozenset(proofs))


async def shred_now(
    store: Store, what: OfCalls | Before, *, whose: str, reason: str, by: str, at: datetime
) -> Shredded:
    """What was there is gone, and a record says so; `whose` is how it names what was to go."""
    gone = await store.would_shred(what)
    if gone.is_nothing:
        return gone
    fields = {
        "summary": f"argument values {whose} were shredded: {counted(gone)}",
        "by": by,
        "reason": reason,
        "holds": len(gone.holds),
        "proofs": gone.proofs,
        "inputs": gone.inputs,
        "standing": gone.standing,
    }
    event: Event | None = Event(kind="administration", at=at, fields=fields)
    while not (await store.shred(what, event)).is_nothing:
        event = None  # one record, with the first of it
    return gone


async def what_is_gone(store: Store, records: Iterable[Record]) -> tuple[str, ...]:
    """What these calls had that nobody can be shown any more, in sentences."""
    records = tuple(records)
    of, base = of_calls(records), (await store.log_base()).sequence
    said = []
    if base and not _is_whole(records):
        said.append(
            f"the log begins behind record {base}: what it had of this before was pruned; look into the archive"
        )
    for hold in sorted(of.holds):
        held = await store.hold(hold)
        if held is not None and held.shredded_at is not None:
            said.append(
                f"the arguments, the result and the verdicts of {hold} were shredded on {held.shredded_at:%Y-%m-%d}"
            )
    if any(text is None for text in await store.signed(sorted(of.proofs))):
        said.append("a signed call is not kept any more; its record has the digest")
    return tuple(said)


def _is_whole(records: Sequence[Record]) -> bool:
    """Whether the records begin with what was asked, and have the decisions by which calls were held."""
    decided = [record.event.fields for record in records if record.event.kind == "decision"]
    waited = {str(f["hold"]) for f in decided if f.get("decision") == "hold" and f.get("hold")}
    begins = bool(records) and records[0].event.kind == "decision"
    return begins and {str(f["approval"]["hold"]) for f in decided if f.get("approval")} <= waited


def counted(it: Shredded) -> str:
    """How much of each, in words: `1 held call, 2 signed calls`."""
    kinds = {
        "held call": len(it.holds),
        "signed call": it.proofs,
        "policy input": it.inputs,
        "standing approval": it.standing,
    }
    return ", ".join(f"{many} {kind}{'s'[: many != 1]}" for kind, many in kinds.items() if many) or "nothing"


async def keep_shredding(store: Store) -> None:
    """What has had its time is shredded, also where nobody calls; without end."""
    while True:
        try:
            while await store.shred_due():
                await anyio.lowlevel.checkpoint()
        except StoreError as error:
            log.error("what has had its time is not shredded: %s", error)
        await anyio.sleep(_EVERY)
