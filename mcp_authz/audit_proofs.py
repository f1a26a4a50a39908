"""What proves a call on another machine, for whoever may read everything: its bundle, and the public keys."""

from __future__ import annotations

import json
from typing import Any

import anyio

from mcp_authz import limits
from mcp_authz.administration import Actor, Administration
from mcp_authz.attempts import Attempts
from mcp_authz.audit_bundles import bundle_of
from mcp_authz.audit_excerpts import records_of
from mcp_authz.checkpoints import checkpoint_keys
from mcp_authz.errors import InputError
from mcp_authz.store.ports import Clock, Event, Record, Store
from mcp_authz.turns import SlowDown


class Proofs:
    """Hands out what `audit explain --bundle` and `audit keys` write, without any value of an argument."""

    def __init__(self, administration: Administration, store: Store, clock: Clock, *, gateway: str) -> None:
        """`gateway` is its public URL."""
        self._administration = administration
        self._store = store
        self._clock = clock
        self._gateway = gateway
        self._taken = Attempts(burst=limits.BUNDLES_BURST, per_second=limits.BUNDLES_PER_SECOND)

    async def bundle(self, actor: Actor, call: str) -> dict[str, Any]:
        """The bundle of one call or hold, as it is at the store; that the actor took it is on record by then.

        Raises:
            Forbidden: the actor may not read everything, and a bundle shows more than what is theirs.
            NotFound: no record is of such a call.
            InputError: several begin like this, or the bundle is too much for one answer.
            SlowDown: too much of theirs is being looked for already, or too many bundles were taken just now.
        """
        await self._administration.require(actor, "audit explain --bundle")
        if self._taken.count(actor.name, self._clock()) is None:
            raise SlowDown("you took many bundles, and each has a record; go on in a minute")
        async with self._administration.turn(actor):
            records, bundle = await self._made(call)
        await self._say_taken(actor, records, call)
        return bundle

    async def keys(self, actor: Actor) -> dict[str, Any]:
        """The public keys of all checkpoints, as a JWK Set.

        Raises:
            Forbidden: the actor may not.
            SlowDown: too much of theirs is being looked for already.
        """
        await self._administration.require(actor, "audit keys")
        async with self._administration.turn(actor):
            return await checkpoint_keys(self._store)

    async def _made(self, call: str) -> tuple[tuple[Record, ...], dict[str, Any]]:
        """The records of the call, and its bundle, if that is neither too large nor too long in the making."""
        with anyio.move_on_after(limits.BUNDLE_WITHIN.total_seconds()):
            records = await records_of(self._store, call)
            if len(records) > limits.BUNDLE_RECORDS:
                raise _too_much()
            bundle = await bundle_of(self._store, self._clock, records, gateway=self._gateway, with_arguments=False)
            if len(json.dumps(bundle)) > limits.BUNDLE_BYTES:
                raise _too_much()
            return records, bundle
        raise _too_much()

    async def _say_taken(self, actor: Actor, records: tuple[Record, ...], call: str) -> None:
        """The record names a call, and no hold: what names a hold is told as part of what became of it."""
        whose = next((record.event.call for record in records if record.event.kind == "decision"), None)
        fields = {
            "by": actor.name,
            "command": "audit explain --bundle",
            "bundle": whose or call,
            "summary": f"{actor.name} took a bundle of {whose or call} from elsewhere",
        }
        await self._store.append(Event(kind="administration", at=self._clock(), fields=fields))


def _too_much() -> InputError:
    return InputError(
        "a bundle of that call is too much for one answer; write it with `mcp-authz audit explain CALL --bundle FILE` "
        "on the machine of the gateway"
    )
