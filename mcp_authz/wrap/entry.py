"""One tool server as a client's file has it, made into what the gateway needs to start it, or a reason why not."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz.errors import InputError
from mcp_authz.wrap.secret import is_secret, secret_arguments, url_has_secret
from mcp_authz.wrap.variables import Filled, Variables

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_READ: Final = frozenset(
    {"type", "transport", "command", "args", "env", "cwd", "url", "serverUrl", "httpUrl", "headers"}
)
_SILENT: Final = frozenset({"disabled", "description", "name", "icon", "gallery", "version"})
_NOT_HERE: Final = ("envFile", "auth", "oauth", "headersHelper", "sandbox", "sandboxEnabled", "dev")
_HTTP: Final = frozenset({"http", "streamable-http", "streamableHttp", "streamable_http"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One server that the gateway can start or reach; its values are what the client would have used."""

    name: str  # as the client's file has it
    command: tuple[str, ...] = ()  # the program by its absolute path; empty for a server behind a URL
    written: str = ""  # the program as the file has it
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    url: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: frozenset[str] = frozenset()  # names in `env` and `headers` whose values go into files
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A server that stays in the client's file, and why."""

    name: str
    because: str


def read_entry(name: str, value: object, variables: Variables, *, keep: frozenset[str]) -> Entry | Left:
    """Return the server as the gateway can use it; `keep` names variables that are no secrets."""
    try:
        return _read(name, value, variables, keep)
    except InputError as error:
        return Left(name=name, because=str(error))


def _read(name: str, value: object, variables: Variables, keep: frozenset[str]) -> Entry:
    if not isinstance(value, dict):
        raise InputError("its entry is no object")
    if value.get("disabled") is True:
        raise InputError("it is disabled there")
    if strange := next((key for key in _NOT_HERE if value.get(key)), None):
        raise InputError(f"it uses `{strange}`, which the gateway does not know")
    kind = value.get("type", value.get("transport"))
    url = next((value[key] for key in ("url", "serverUrl", "httpUrl") if value.get(key)), None)
    if kind == "sse":
        raise InputError("it speaks the older HTTP+SSE transport; the gateway speaks Streamable HTTP")
    if kind is not None and kind != "stdio" and kind not in _HTTP:
        raise InputError(f"its type `{kind}` is not known; there are stdio and http")
    ignored = sorted(value.keys() - _READ - _SILENT - set(_NOT_HERE))
    notes = (f"not taken over: {', '.join(ignored)}",) if ignored else ()
    if "command" in value and url is None and kind not in _HTTP:
        return _stdio(name, value, variables, keep, notes)
    if url is not None and "command" not in value and kind != "stdio":
        return _http(name, _text("url", url), value, variables, notes)
    raise InputError("it has neither a `command` alone nor a `url` alone")


def _stdio(
    name: str, value: Mapping[str, Any], variables: Variables, keep: frozenset[str], notes: tuple[str, ...]
) -> Entry:
    written = variables.fill(_text("command", value["command"]))
    arguments = [variables.fill(argument) for argument in _texts("args", value.get("args", []))]
    given = {key: variables.fill(text) for key, text in _table("env", value.get("env", {})).items()}
    cwd = _folder(variables, value.get("cwd"))
    env = {key: filled.text for key, filled in given.items()}
    for key, text in env.items():
        if not _VARIABLE.fullmatch(key):
            raise InputError(f"`{key}` in its `env` is no name of a variable")
        _require_storable(key, text)
    # A server gets nothing of the gateway's own environment; clients give it at least these two.
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home()), **env}
    program = _program(written.text, env["PATH"], cwd)
    return Entry(
        name=name,
        command=(program, *(filled.text for filled in arguments)),
        written=written.text,
        cwd=cwd,
        env=env,
        secrets=frozenset(
            key for key, filled in given.items() if key not in keep and (filled.foreign or is_secret(key, filled.text))
        ),
        warnings=(*_argument_warnings(arguments), *notes),
    )


def _http(name: str, url: str, value: Mapping[str, Any], variables: Variables, notes: tuple[str, ...]) -> Entry:
    filled = variables.fill(url)
    parts = urlsplit(filled.text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError("its URL does not begin with http:// or https:// and a host")
    if filled.foreign and url_has_secret(filled.text):
        raise InputError("a secret would have to be written into its URL; let it take it as a header")
    headers = {key: variables.fill(text).text for key, text in _table("headers", value.get("headers", {})).items()}
    for key, text in headers.items():
        if not _HEADER.fullmatch(key) or not text.isprintable():
            raise InputError(f"`{key}` in its `headers` is no header")
    warnings = ("its URL carries a secret, which stays readable there",) if url_has_secret(filled.text) else ()
    return Entry(name=name, url=filled.text, headers=headers, secrets=frozenset(headers), warnings=(*warnings, *notes))


def _argument_warnings(arguments: list[Filled]) -> tuple[str, ...]:
    secret = secret_arguments([filled.text for filled in arguments])
    if any(arguments[at].foreign for at in secret):
        raise InputError("a secret would have to be written into its arguments; let it take it from `env`")
    if not secret:
        return ()
    places = ", ".join(str(at + 1) for at in sorted(secret))
    return (f"argument {places} looks like a secret; arguments can be seen by others, let it take it from `env`",)


def _folder(variables: Variables, value: object) -> Path:
    home = variables.project or Path.home()
    if value is None:
        return home
    folder = home / variables.fill(_text("cwd", value)).text
    if not folder.is_dir():
        raise InputError(f"its `cwd` {folder} is no folder")
    return folder


def _program(written: str, path: str, cwd: Path) -> str:
    """The absolute path of the program, found as its client would; symbolic links are kept."""
    found = shutil.which(str(cwd / written)) if "/" in written else shutil.which(written, path=path)
    if found is None:
        raise InputError(f"its program `{written}` is not installed or not executable")
    return str(Path(found).absolute())


def _require_storable(key: str, text: str) -> None:
    if "\r" in text or text.endswith("\n"):
        raise InputError(f"the value of {key} has a character that a secret file cannot keep")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value or not _writable(value):
        raise InputError(f"its `{key}` is no text")
    return value


def _texts(key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) and _writable(item) for item in value):
        raise InputError(f"its `{key}` is no list of texts")
    return value


def _table(key: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"its `{key}` is no object")
    table = {}
    for name, item in value.items():
        if isinstance(item, bool) or not isinstance(item, str | int | float) or not _writable(name + str(item)):
            raise InputError(f"`{name}` in its `{key}` is no text")
        table[name] = str(item)
    return table


def _writable(text: str) -> bool:
    """Whether a process can be given this text, and a file can hold it."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
