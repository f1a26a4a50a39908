"""What became of one request, as the road answers it and the edges translate it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_authz.model import Deny, HeldCall
from mcp_authz.rules.task import Task


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSeen:
    """How a task stands, as its owner is told."""

    call_id: str
    task: Task
    held: HeldCall
    asked: Mapping[str, Mapping[str, Any]]  # the open questions that this client can be asked, by key
    came_to: Outcome | None = None  # what its call came to, once that is over
    said: Deny | None = None  # why a poll did not run the call, where only time helps
    is_new: bool = False  # the answer to the call itself, which is a task from now on


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What the client said about its task was heard."""

    call_id: str


Outcome = Forwarded | Replayed | Held | Asked | Refused | Broken | TaskSeen | Acknowledged


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
