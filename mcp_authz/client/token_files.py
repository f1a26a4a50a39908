"""A sign-in in a file: only its owner can read it, it is whole at each moment, and one process at a time renews it."""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from mcp_authz.client.signed_in import SignedIn
from mcp_authz.errors import ConfigError, Conflict, InputError
from mcp_authz.new_file import write_new

_LARGEST: Final = 256 * 1024  # bytes; a larger file is none of ours
_PATIENCE: Final = 30.0  # seconds that another process may take to renew it


class FileTokens:
    """Keeps one sign-in in the file `path`, mode 0600; its directory is made when it is missing, mode 0700."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def load(self) -> SignedIn | None:
        """Return what was saved last; None when there is nothing.

        Raises:
            ConfigError: others can read the file, or it is none of ours.
        """
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(_LARGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"`{self.path}` cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise ConfigError(f"`{self.path}` can be read by others; delete it and sign in again")
        try:
            said = json.loads(raw)
            return SignedIn.from_json(said if isinstance(said, dict) else {})
        except (ValueError, RecursionError, InputError):
            raise ConfigError(f"`{self.path}` holds no sign-in; delete it and sign in again") from None

    def save(self, signed_in: SignedIn | None) -> None:
        """The file holds this, whole, or is gone; whoever reads meanwhile sees the old file or the new one.

        Raises:
            ConfigError: it cannot be written.
        """
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            if signed_in is None:
                self.path.unlink(missing_ok=True)
                return
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                write_new(draft, json.dumps(signed_in.to_json()))
                draft.replace(self.path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"`{self.path}` cannot be written: {error.strerror}") from None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No other process renews it while the body runs; its end, whatever it was, lets go.

        Raises:
            ConfigError: another process takes too long.
        """
        from mcp_authz.locking import locked  # here: whoever only imports the library goes without

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + _PATIENCE
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self.path.with_name(f".{self.path.name}.lock")))
                    break
                except Conflict:
                    if time.monotonic() > deadline:
                        raise ConfigError(f"another process has `{self.path}` and does not let go") from None
                await anyio.sleep(0.05)
            yield
