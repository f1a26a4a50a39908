"""What became of one request, as the road answers it and the edges translate it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_authz.model import Deny, HeldCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """The tool server answered with this result."""

    call_id: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The call ran moments ago; this is its recorded result, and nothing ran again."""

    call_id: str
    held: HeldCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The call waits for a person; nothing ran."""

    call_id: str
    held: HeldCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The caller is asked by an `input_required` result and calls again with the answer."""

    call_id: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The call is denied; nothing ran."""

    call_id: str
    deny: Deny


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The call was permitted and then failed: the tool server's own JSON-RPC error, or no answer at all.

    `may_have_run` is True when nobody can say whether it ran.
    """

    call_id: str
    rpc_code: int
    message: str
    data: object
    may_have_run: bool


Outcome = Forwarded | Replayed | Held | Asked | Refused | Broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Unauthorized:
    """Steps 1 to 6 refused the request: who asks is not known, or the message cannot be read.

    `status` is 400 or 401; `error` and `description` go into the challenge of a 401, `rpc_code` into the body.
    """

    status: int
    error: str
    description: str
    rpc_code: int
    id: str | int | None = None
