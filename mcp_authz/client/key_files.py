"""An agent's private key in a file: only its owner can read it, and nothing is overwritten by accident."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from mcp_authz.errors import ConfigError, Conflict, KeyRefused
from mcp_authz.new_file import flush, write_new
from mcp_authz.rules.keys import PrivateKey, open_private, seal_private

_LARGEST: Final = 64 * 1024  # bytes of a key file; anything larger is something else
_SEALED: Final = "mcp-authz-key-"


def load_key(path: Path, passphrase: str | None = None) -> PrivateKey:
    """Return the key in the file: PKCS#8 PEM, or sealed with a passphrase.

    Raises:
        KeyRefused: others can read it, it is no such key, or the passphrase is missing or another.
        ConfigError: the file cannot be read.
    """
    text = _read(path).strip()
    try:
        if not text.startswith(_SEALED):
            return PrivateKey.from_pem(text)
        if passphrase is None:
            raise KeyRefused("the key is sealed; give its passphrase")
        return open_private(text, passphrase)
    except KeyRefused as error:
        raise KeyRefused(f"`{path}`: {error}") from None


def is_sealed(path: Path) -> bool:
    """Whether the key in the file is sealed with a passphrase.

    Raises:
        KeyRefused, ConfigError: as `load_key`.
    """
    return _read(path).strip().startswith(_SEALED)


def save_key(path: Path, key: PrivateKey, passphrase: str | None = None, *, replace: bool) -> None:
    """The file holds the key, whole and with mode 0600; whoever reads meanwhile sees the old file or the new one.

    Raises:
        Conflict: there is something at `path`, and it is not to be replaced.
        ConfigError: it cannot be written.
    """
    text = key.to_pem() if passphrase is None else f"{seal_private(key, passphrase)}\n"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            write_new(draft, text)
            if replace:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename it does not take the place of what is there
            flush(path.parent)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise Conflict(f"`{path}` exists already and is not overwritten; name another file") from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be written: {error.strerror}") from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"key file `{path}` cannot be read: {error.strerror}; name the file it is in") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise KeyRefused(f"key file `{path}` can be read by others; run: chmod 600 {path}")
    return text
