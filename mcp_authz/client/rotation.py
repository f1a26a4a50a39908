"""An agent replaces its own key: the new one is on disk before the gateway hears of it, so that none is ever lost.

Beside `coder.pem` lies `coder.pem.new` while the gateway is asked. Whoever finds it later asks again, first with the
old key and then with the new one: the gateway takes the assertion of the one that counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.client.asking import Applicant, asserted
from mcp_authz.client.door import Door, NoAnswer, SignInRefused
from mcp_authz.client.key_files import is_sealed, load_key, save_key
from mcp_authz.client.talk import Ask, Talk, carry, json_object
from mcp_authz.errors import AuthzError, Conflict, KeyRefused
from mcp_authz.ids import new_id
from mcp_authz.locking import locked
from mcp_authz.rules.key_proof import prove_key, rotation_url
from mcp_authz.rules.keys import PrivateKey

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0  # seconds that another process of the same agent may take
_refused_at: Final[dict[Path, float]] = {}  # when (monotonic) the gateway refused to replace the key in this file


class RotationRefused(AuthzError):
    """The gateway, or what is before it, does not take the new key; the message says why."""

    code = "rotation_refused"


class _OldCounts(RotationRefused):
    """The gateway has let the old key in: no answer that was lost on its way had taken the new one."""


class _Unwanted(_OldCounts):
    """And it will not take this new one."""


def draft_of(path: Path) -> Path:
    """Where the new key lies until it is known to count."""
    return path.with_name(f"{path.name}.new")


def lock_of(path: Path) -> Path:
    """What whoever replaces the key holds locked."""
    return path.with_name(f".{path.name}.lock")


async def keep_fresh(
    http: httpx2.AsyncClient, door: Door, agent: str, path: Path, *, older_than: timedelta | None
) -> None:
    """The file holds the key that counts, as far as that can be had now; one older than `older_than` was replaced.

    A rotation that cannot be done changes nothing: the agent goes on with the key it has, and the log says why. One
    that the gateway refused is not asked for again for a while.
    """
    refused_at = _refused_at.get(path)
    if refused_at is not None and time.monotonic() - refused_at < limits.ROTATION_PAUSE.total_seconds():
        return
    if not draft_of(path).exists() and not _is_older(path, older_than):
        return
    try:
        async with alone(path):
            if draft_of(path).exists() or _is_older(path, older_than):
                await rotate(http, door, agent, path)
    except (AuthzError, OSError) as error:
        if isinstance(error, _OldCounts):
            _refused_at[path] = time.monotonic()
        log.warning("the key of agent `%s` stays as it is, though it is time for another: %s", agent, error)


async def rotate(http: httpx2.AsyncClient, door: Door, agent: str, path: Path) -> PrivateKey:
    """Return the new key, which counts and is in the file; what was issued to the old one counts for a while longer.

    Whoever calls this is `alone`. The new key is thrown away only when the gateway has let the old one in and refused
    the new one: any other answer may come after one that took it, and was lost.

    Raises:
        RotationRefused: the gateway does not take another key now.
        SignInRefused: it takes neither the old key nor the new one.
        NoAnswer: nobody answers; the next try finds out which key counts.
        KeyRefused, ConfigError: a file cannot be used.
    """
    require_open(path)
    old, draft = load_key(path), draft_of(path)
    if not draft.exists():
        save_key(draft, PrivateKey.generate(), replace=False)
    new = load_key(draft)
    try:
        await carry(http, _replaced(Applicant(name=agent, key=old, door=door), new))
    except SignInRefused:  # perhaps the new one counts already
        await carry(http, _replaced(Applicant(name=agent, key=new, door=door), new))
    except _Unwanted:
        draft.unlink()
        raise
    draft.replace(path)
    return new


def _replaced(who: Applicant, new: PrivateKey) -> Talk[None]:
    where = rotation_url(who.door.issuer, who.name)
    proof = prove_key(new, agent=who.name, audience=where, id=new_id("k"), at=who.clock())
    answer = yield Ask(url=reached(who.door, where), form={**asserted(who, {}), "proof": proof})
    body = json_object(answer)
    if body is None or answer.status_code >= 500:
        raise NoAnswer(f"the gateway at {who.door.issuer} cannot replace keys now")
    said = f"{body.get('error')}: {body.get('error_description', 'no reason')}"
    if answer.status_code == 401 or body.get("error") == "invalid_client":
        raise SignInRefused(said)
    if answer.status_code in {400, 409} and who.key is not new:
        refusals = {"invalid_request": _Unwanted, "invalid_key_proof": _OldCounts}  # the second: compare the clocks
        raise refusals.get(str(body.get("error")), RotationRefused)(said)
    if answer.status_code != 200:
        raise RotationRefused(said)
    if body.get("key") != new.public.thumbprint:
        raise NoAnswer(f"what answers for the gateway at {who.door.issuer} says nothing of the new key")


def reached(door: Door, url: str) -> str:
    """A URL of the issuer as this client gets there: a local gateway is reached by other means than its public URL."""
    base = door.token_endpoint.removesuffix("/token")
    return url.replace(door.issuer, base, 1) if base != door.token_endpoint else url


def require_open(path: Path) -> None:
    """Return only if the key can be replaced in its file.

    Raises:
        KeyRefused: it is sealed with a passphrase, or cannot be read.
    """
    if is_sealed(path):
        raise KeyRefused(
            f"`{path}` is sealed with a passphrase, and a new key would lie there without one; make a key "
            "(`AgentIdentity.generate`, `save` with the passphrase) and have it registered: "
            "mcp-authz agent rotate NAME --public-key TEXT"
        )


def _is_older(path: Path, age: timedelta | None) -> bool:
    """Whether the key was written so long ago; a file that is not there is for others to complain about."""
    try:
        return age is not None and time.time() - path.stat().st_mtime > age.total_seconds()
    except OSError:
        return False


@asynccontextmanager
async def alone(path: Path) -> AsyncIterator[None]:
    """No other process of this user replaces this key meanwhile.

    Raises:
        Conflict: one does, and takes very long.
    """
    until = time.monotonic() + _PATIENCE
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(lock_of(path)))
                break
            except Conflict:
                if time.monotonic() >= until:
                    raise
            await anyio.sleep(0.05)
        yield
