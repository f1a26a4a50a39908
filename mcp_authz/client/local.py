"""The gateway on this machine: found by its Unix socket, and started, detached, when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import anyio
import httpx2

from mcp_authz import unix_socket
from mcp_authz.client.door import Door
from mcp_authz.client.place import Reached, http_over
from mcp_authz.client.trouble import Trouble
from mcp_authz.errors import AuthzError, Conflict
from mcp_authz.locking import is_locked, locked

LOG_BYTES: Final = 1024 * 1024  # of the gateway's log; the one before is kept beside it
IDLE_MINUTES: Final = 30
_LOOK: Final = 0.02  # seconds between two looks whether it is there
_RESTING: Final = 2.0  # seconds in which a start that failed is not tried again


class Home(Protocol):
    """What the configuration says of where a local gateway lives."""

    @property
    def public_url(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def data(self) -> Path: ...
    @property
    def socket(self) -> Path: ...
    @property
    def lock(self) -> Path: ...


class Local:
    """The gateway of one configuration file, which is read again whenever the gateway has to be looked for."""

    patience = 20.0

    def __init__(self, config: Path, load: Callable[[Path], Home]) -> None:
        self.name = str(config)
        self._config = config
        self._load = load
        self._reached: Reached | None = None
        self._looking = anyio.Lock()
        self._failed: tuple[float, str] | None = None  # when a start failed, and why
        self._child: subprocess.Popen[bytes] | None = None  # the gateway that we started last

    async def reach(self, *, start: bool = True) -> Reached:
        """Return how to get there: it answers; if nobody listened it was started."""
        if self._reached is not None:
            return self._reached
        async with self._looking:
            if self._reached is None:
                self._reached = await self._found(start)
            return self._reached

    def lost(self) -> None:
        """The next `reach` looks again."""
        self._reached = None

    async def aclose(self) -> None:
        """All connections are closed."""
        if self._reached is not None:
            await self._reached.http.aclose()
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # it outlives us, and `Popen` need not complain about that

    async def _found(self, start: bool) -> Reached:
        try:
            home = self._load(self._config)
        except AuthzError as error:
            raise _cannot(f"the configuration of the gateway cannot be used: {error}") from None
        reached = _reached(home)
        try:
            with anyio.fail_after(self.patience):
                await self._listening(home, start)
                await self._healthy(home, reached)
        except TimeoutError:
            await reached.http.aclose()
            raise _cannot(f"the gateway did not answer within {self.patience:g} seconds", home) from None
        except BaseException:
            await reached.http.aclose()
            raise
        return reached

    async def _listening(self, home: Home, start: bool) -> None:
        """Somebody listens at the socket; it is known to be this user's."""
        if not _there(home):
            if not start:
                raise _cannot("the gateway does not run")
            await self._start(home)

    async def _start(self, home: Home) -> None:
        if self._failed is not None and time.monotonic() - self._failed[0] < _RESTING:
            raise _cannot(self._failed[1], home)
        home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        started = False
        with ExitStack() as held:
            while not _there(home):
                if started and self._child is not None and self._child.poll() is not None:
                    if not is_locked(home.lock):
                        raise self._ended(home)
                    started = False  # another one runs, and will listen or end
                elif not started and not is_locked(home.lock) and _holds(held, home):
                    self._child, started = _spawn(home, self._config), True
                await anyio.sleep(_LOOK)

    async def _healthy(self, home: Home, reached: Reached) -> None:
        """It answers: a gateway that starts listens long before it does."""
        try:
            await reached.http.get(reached.url.removesuffix("/mcp") + "/healthz")
        except httpx2.HTTPError:
            raise self._ended(home) from None

    def _ended(self, home: Home) -> Trouble:
        ours = self._child is not None and self._child.poll() is not None
        why = f"the gateway could not be started: {_last_line(home)}" if ours else "the gateway ended while it started"
        self._failed = (time.monotonic(), why)
        return _cannot(why, home)


def _reached(home: Home) -> Reached:
    # Over the socket in plain HTTP, whatever is in front of the port; Host is what the gateway answers for.
    base = f"http://{urlsplit(home.public_url).netloc}"
    door = Door(issuer=home.public_url, token_endpoint=f"{base}/token", published=f"{home.public_url}/token")
    return Reached(http=http_over(str(home.socket)), url=f"{base}/mcp", resource=home.resource, door=door)


def _there(home: Home) -> bool:
    if not unix_socket.answers(home.socket):
        return False
    try:
        unix_socket.require_own_directory(home.socket.parent)
    except AuthzError as error:
        raise _cannot(str(error)) from None
    return True


def _holds(held: ExitStack, home: Home) -> bool:
    """Whether we are the one that starts the gateway: of several clients that find none, one does."""
    try:
        held.enter_context(locked(home.data / "gateway.start"))
    except Conflict:
        return False
    except AuthzError as error:
        raise _cannot(str(error)) from None
    return True


def _spawn(home: Home, config: Path) -> subprocess.Popen[bytes]:
    """A gateway of its own session, which outlives us; never by a shell, never found on a PATH."""
    words: Sequence[str] = (
        *(sys.executable, "-P", "-m", "mcp_authz.cli.main"),
        *("--config", str(config), "serve", "--idle-minutes", str(IDLE_MINUTES)),
    )
    log = os.open(_rotated(home), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home.data, start_new_session=True
        )
    finally:
        os.close(log)


def _log(home: Home) -> Path:
    return home.data / "gateway.log"


def _rotated(home: Home) -> Path:
    path = _log(home)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_name("gateway.log.1"))
    return path


def _last_line(home: Home) -> str:
    try:
        lines = _log(home).read_bytes()[-LOG_BYTES:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("mcp-authz: ") if lines else "it said nothing"


def _cannot(why: str, home: Home | None = None) -> Trouble:
    more = f"; its log is {_log(home)}" if home is not None else ""
    return Trouble(f"{why}{more}; put that right and call again, nothing has to be restarted")
