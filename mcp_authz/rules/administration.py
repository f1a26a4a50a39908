"""Who may do what to the gateway itself: one closed table of commands and roles for page, API and command line.

Two roles are a person's everywhere; the configuration names who has them. The others are what a person is to one
thing: an agent's owner, the person something is done for, one of those who may answer a held call. A command that is
not in the table is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What somebody is: to the whole gateway, or to one thing in it."""

    ADMIN = "admin"
    AUDITOR = "auditor"
    OWNER = "owner"  # of the agent, or of one above it in the chain
    PERSON = "person"  # it is done for them, or is theirs
    APPROVER = "approver"  # may answer it, or answered it


EVERYWHERE: Final = frozenset({Role.ADMIN, Role.AUDITOR})

_CHANGE: Final = frozenset({Role.ADMIN})
_READ: Final = frozenset({Role.ADMIN, Role.AUDITOR})
_OWN: Final = frozenset({Role.ADMIN, Role.OWNER, Role.PERSON})

COMMANDS: Final[Mapping[str, frozenset[Role]]] = {
    # Reading. Whoever reads by what they are to a thing reads of such things alone.
    "audit list": _READ | {Role.OWNER, Role.PERSON},
    "audit tail": _READ | {Role.OWNER, Role.PERSON},
    "audit explain": _READ | {Role.OWNER, Role.PERSON},
    "audit export": _READ,
    "audit keys": _READ,
    "audit shred": _CHANGE,
    "agent list": _READ | {Role.OWNER, Role.PERSON},
    "agent show": _READ | {Role.OWNER, Role.PERSON},
    "session list": _READ | {Role.OWNER, Role.PERSON},
    "session show": _READ | {Role.OWNER, Role.PERSON},
    "status": _READ,
    # Held calls: who answers is for the rules of each call to say. No role answers for somebody else.
    "holds list": frozenset({Role.APPROVER}),
    "holds show": frozenset({Role.APPROVER}),
    "holds approve": frozenset({Role.APPROVER}),
    "holds deny": frozenset({Role.APPROVER}),
    "holds send-back": frozenset({Role.APPROVER}),
    # Stopping.
    "revoke link": _OWN,
    "revoke session": _OWN,
    "revoke grant": _OWN,
    "revoke agent": frozenset({Role.ADMIN, Role.OWNER}),
    "revoke key": _OWN,
    "revoke hold": _OWN,
    "revoke approval": _OWN | {Role.APPROVER},
    "revoke client": _CHANGE,
    "revoke person": _CHANGE,
    "revoke passkey": _CHANGE,
    "revoke tool": _CHANGE,
    "revoke server": _CHANGE,
    "revoke everything": _CHANGE,
    "stop-all": _CHANGE,
    "start-all": _CHANGE,
}


def permits(command: str, roles: Iterable[Role]) -> bool:
    """Whether one of the roles may do this."""
    return not COMMANDS.get(command, frozenset()).isdisjoint(roles)


def reaches_everything(command: str, roles: Iterable[Role]) -> bool:
    """Whether one of the roles may do this to anything, whatever somebody is to it."""
    return permits(command, EVERYWHERE.intersection(roles))
