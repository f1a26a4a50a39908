"""What the operating system's user under which agents run could do to this installation behind the gateway's back."""

from __future__ import annotations

from mcp_authz.doctor.access import OsUser, may_change, may_connect, may_read, myself
from mcp_authz.doctor.belongings import Belonging, belongings
from mcp_authz.doctor.finding import Case, Finding, broken, fine, named, note

SAME = "same user"
WAYS = (
    "run the agent as a second user of this system, in a container without these files, or against a gateway on "
    "another machine; then: mcp-authz doctor --agent-user NAME"
)


async def check_same_user(case: Case) -> tuple[Finding, ...]:
    """Say what agents could read and change; whether that is so is decided by owners and modes alone."""
    me, there = myself(), belongings(case.config)
    if case.agent_user is None:
        return _as_myself(me, there)
    if case.agent_user.uid == me.uid:
        return (broken(SAME, f"user {me.name} is who runs the gateway: {_everything(there)}", WAYS),)
    return _as_another(case, case.agent_user, there)


def _as_myself(me: OsUser, there: tuple[Belonging, ...]) -> tuple[Finding, ...]:
    said = f"an agent with a shell that runs as you ({me.name}) can read and change {_everything(there)}"
    proof = "approvals need a passkey, or a passphrase at the terminal, because of that"
    return (note(SAME, f"{said}; {proof}", WAYS),)


def _everything(there: tuple[Belonging, ...]) -> str:
    return named([it.what for it in there], most=20) or "whatever will be here"


def _as_another(case: Case, user: OsUser, there: tuple[Belonging, ...]) -> tuple[Finding, ...]:
    found = []
    if read := [it.what for it in there if it.secret and may_read(user, it.path)]:
        found.append(
            broken(SAME, f"user {user.name} can read {named(read, most=20)}", f"chmod -R go= {case.config.data}")
        )
    changed = [it.what for it in there if may_change(user, it.path)]
    if may_change(user, case.config.data):
        changed.append("the data directory")
    if changed:
        do = "take away write permission from files and from every directory above them"
        found.append(broken(SAME, f"user {user.name} can change {named(changed, most=20)}", do))
    if case.config.socket.exists() and may_connect(user, case.config.socket):
        found.append(
            broken(
                SAME, f"user {user.name} can connect to {case.config.socket}", f"chmod 700 {case.config.socket.parent}"
            )
        )
    return tuple(found) or (fine(SAME, f"user {user.name} can read none of the secrets here, and change nothing"),)
