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
    "audit explain --bundle": _READ,  # it shows grants, delegations and enrolments beside the call
    "audit export": _READ,
    "audit keys": _READ,
    "audit shred": _CHANGE,
    "audit prune": _CHANGE,
    "agent list": _READ | {Role.OWNER, Role.PERSON},
    "agent show": _READ | {Role.OWNER, Role.PERSON},
    "session list": _READ | {Role.OWNER, Role.PERSON},
    "session show": _READ | {Role.OWNER, Role.PERSON},
    "status": _READ,
    "doctor": _READ,
    "user list": _READ,
    "user show": _READ | {Role.PERSON},
    "client list": _READ,
    "client show": _READ,
    "grant list": _READ,
    "grant show": _READ,
    "webhooks list": _READ,
    "tools list": _READ,
    "tools diff": _READ,
    "policy explain": _READ,
    "policy shadow": _READ,
    "policy replay": _READ,
    "policy suggest": _READ,
    "keys list": _READ,
    "holds standing": _READ,
    "holds stats": _READ,
    "holds export": _READ,
    # Held calls: who answers is for the rules of each call to say. No role answers for somebody else.
    "holds list": frozenset({Role.APPROVER}),
    "holds watch": frozenset({Role.APPROVER}),
    "holds show": frozenset({Role.APPROVER}),
    "holds approve": frozenset({Role.APPROVER}),
    "holds deny": frozenset({Role.APPROVER}),
    "holds send-back": frozenset({Role.APPROVER}),
    # Setting up: by whoever has the store.
    "user add": _CHANGE,
    "user key": _CHANGE,
    "user passkey": _CHANGE,
    "user link": _CHANGE,
    "user sign-out": _CHANGE,
    "agent add": _CHANGE,
    "agent rotate": _CHANGE,
    "agent edit": _CHANGE,
    "agent code": _CHANGE,
    "agent refresh": _CHANGE,
    "client add": _CHANGE,
    "grant add": _CHANGE,
    "session start": _CHANGE,
    "webhooks test": _CHANGE,
    "webhooks secret": _CHANGE,
    "tools accept": _CHANGE,
    "tools review": _CHANGE,
    "keys rotate": _CHANGE,
    "backup": _CHANGE,
    "restore": _CHANGE,
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
