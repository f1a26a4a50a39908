"""The configuration file, edited: comments and layout stay, and only what was meant to change has changed."""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError, Conflict

_INLINE: Final = frozenset({"env", "env_files", "header_files", "headers", "resource"})


class ConfigFile:
    """A configuration as text with changes that are not written yet; `save` writes all of them or none."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            ConfigError: it cannot be read, or is no configuration.
        """
        self._path = path.resolve()
        try:
            self._before = self._path.read_bytes()
            text = self._before.decode("utf-8")
            self._wanted: dict[str, Any] = tomllib.loads(text)
            self._document = tomlkit.parse(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TOMLKitError) as error:
            raise ConfigError(f"configuration file `{path}` cannot be read: {error}") from None
        parse_config(self._wanted, source=self._path)

    @property
    def servers(self) -> Mapping[str, Mapping[str, Any]]:
        """The servers there are, the new ones included."""
        servers: Mapping[str, Mapping[str, Any]] = self._wanted.get("servers", {})
        return servers

    def add_server(self, name: str, values: Mapping[str, Any], *, comment: str = "") -> None:
        """There is a table `[servers.NAME]` with these values, after a line that says where it comes from.

        Raises:
            Conflict: there is a server of this name already; it is left as it is.
        """
        if name in self.servers:
            raise Conflict(f"there is a server `{name}` in `{self._path}` already; it is left as it is")
        self._wanted.setdefault("servers", {})[name] = _plain(values)
        table = _table({key: value for key, value in values.items() if key != "tools"})
        if comment:
            table.comment(comment)
        self._table_of("servers")[name] = table
        for tool, entry in values.get("tools", {}).items():
            self._tools_of(name)[tool] = _table(entry)

    def classify(self, server: str, tool: str, entry: Mapping[str, Any]) -> None:
        """The tool of this server has this entry; comments in the one that it had stay.

        Raises:
            ConfigError: there is no such server.
        """
        if server not in self.servers:
            raise ConfigError(f"there is no server `{server}` in `{self._path}`")
        self._wanted["servers"][server].setdefault("tools", {})[tool] = _plain(entry)
        tools = self._tools_of(server)
        if tool not in tools:
            tools[tool] = _table(entry)
            return
        table: Any = tools[tool]
        for key in [*table]:
            if key not in entry:
                del table[key]
        for key, value in entry.items():
            if key not in table or table[key] != value:
                table[key] = _item(key, value)

    def save(self) -> bool:
        """The file is as it was changed, whole and at once; returns whether anything was to be written.

        Raises:
            ConfigError: it would be no configuration, somebody else changed it meanwhile, or it cannot be written.
        """
        text = tomlkit.dumps(self._document)
        if tomllib.loads(text) != self._wanted:
            raise ConfigError(f"`{self._path}` is written in a way that cannot be edited safely; nothing was changed")
        parse_config(self._wanted, source=self._path)
        if text.encode() == self._before:
            return False
        try:
            if self._path.read_bytes() != self._before:
                raise ConfigError(f"`{self._path}` was changed by somebody else meanwhile; run this again")
            replace_file(self._path, text.encode())
        except OSError as error:
            raise ConfigError(f"`{self._path}` cannot be written: {error.strerror}") from None
        self._before = text.encode()
        return True

    def _table_of(self, name: str) -> Table:
        if name not in self._document:
            self._document.append(name, tomlkit.table(is_super_table=True))
        table: Table = self._document[name]  # or a proxy for one that is written in several places
        return table

    def _tools_of(self, server: str) -> Table:
        table: Any = self._table_of("servers")[server]
        if "tools" not in table:
            table["tools"] = tomlkit.table(is_super_table=True)
        tools: Table = table["tools"]
        return tools


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """The file has this content, at once, with the mode and owner that it had (or `mode`, or 0600 if it is new).

    Raises:
        OSError: it cannot be written; then it is as it was.
    """
    with suppress(FileNotFoundError):
        known = path.stat()
        mode = stat.S_IMODE(known.st_mode) if mode is None else mode
        owner: tuple[int, int] | None = (known.st_uid, known.st_gid)
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if path.exists() and owner is not None and owner != (os.geteuid(), os.getegid()):
                with suppress(PermissionError):
                    os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), 0o600 if mode is None else mode)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def _table(values: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in values.items():
        table.add(key, _item(key, value))
    return table


def _item(key: str, value: Any) -> Any:
    if isinstance(value, Mapping) and key in _INLINE:
        inline = tomlkit.inline_table()
        inline.update(value)
        return inline
    return list(value) if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    """The value as a TOML reader gives it."""
    match value:
        case Mapping():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return value
