"""Key files: private keys are written once, for this user only; public keys are read from a file or as text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp_authz.errors import AuthzError, ConfigError, Conflict, KeyRefused
from mcp_authz.new_file import write_new
from mcp_authz.rules.keys import PrivateKey, PublicKey, open_private

KEYS = "agents"  # the folder in the data directory
_LARGEST = 64 * 1024  # bytes of a key file; anything larger is something else


@contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """The file is there with mode 0600; the folder where `connect` looks for keys is made, any other has to be there.

    It is removed again if what follows does not succeed.

    Raises:
        Conflict: there is something at `path` already.
        ConfigError: it cannot be written.
    """
    try:
        if path.parent.name == KEYS and not path.parent.exists():
            path.parent.mkdir(mode=0o700)
        write_new(path, text)
    except FileExistsError:
        raise Conflict(f"`{path}` exists already and is not overwritten; name another file") from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be written: {error.strerror}; name another file") from None
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def require_free(path: Path) -> None:
    """Return only if there is nothing at `path`; asked before a person types anything.

    Raises:
        Conflict: there is.
    """
    if os.path.lexists(path):
        raise Conflict(f"`{path}` exists already and is not overwritten; name another file")


def public_key(text: str) -> PublicKey:
    """Return the public key in the file of this name, or that the text itself is.

    Raises:
        KeyRefused: neither of the two.
        ConfigError: the file cannot be read.
    """
    if not text.lstrip().startswith(("{", "-")) and len(text) < 1024 and (path := Path(text)).exists():
        try:
            return PublicKey.from_text(_text(path))
        except KeyRefused as error:
            raise KeyRefused(f"`{path}`: {error}") from None
    try:
        return PublicKey.from_text(text)
    except KeyRefused as error:
        if "/" in text or "." in text:
            raise KeyRefused(f"there is no file `{text}`, and the text itself is no public key") from None
        raise KeyRefused(f"no file has this name, and as a key: {error}") from None


def sealed_key(path: Path) -> str:
    """Return the text of an approver's key file, once it is known that a passphrase protects it.

    Raises:
        KeyRefused: anybody who can read the file could use the key, or it is no key.
        ConfigError: the file cannot be read.
    """
    text = _text(path).strip()
    if text.startswith(("-----", "{")):
        raise KeyRefused(
            f"`{path}` is not protected by a passphrase, so it cannot prove that a person approves; "
            "make a key that is with: mcp-authz user key PERSON FILE"
        )
    return text


def unsealed(path: Path, text: str, passphrase: str) -> PrivateKey:
    """Return the key in a sealed key file.

    Raises:
        KeyRefused: the passphrase is another, or this is no sealed key.
    """
    try:
        return open_private(text, passphrase)
    except AuthzError as error:
        raise KeyRefused(f"`{path}`: {error}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"key file `{path}` cannot be read: {error.strerror}") from None
