"""The policy engine that a configuration names: files read, language or protocol known, engine made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_authz.config import Config, read_secret_file
from mcp_authz.config_policy import BUILTIN, form_of, form_of_all
from mcp_authz.errors import ConfigError
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyEngine

if TYPE_CHECKING:
    from mcp_authz.policy.remote import Pdp


def load_engine(config: Config, entries: Sequence[str], *, key: str = "policy") -> PolicyEngine:
    """Return the engine over these entries: Cedar or Rego files, or an engine elsewhere.

    An engine elsewhere is not asked yet; one that keeps connections has `aclose`.

    Args:
        config: where relative paths start, and how engines elsewhere are asked.
        entries: the value of `policy` or `shadow_policy`, or one of the same forms from the command line.
        key: what to call the entries when something is wrong with them.

    Raises:
        ConfigError: a file is missing, an entry has no known form, or an extra is not installed.
        PolicyError: a policy is not sound.
    """
    return make_engine(config, entries, read_files(config, entries, key=key), key=key)


def read_files(config: Config, entries: Sequence[str], *, key: str = "policy") -> dict[str, str]:
    """Return the texts of those entries that are files, by entry; an engine elsewhere has none.

    Raises:
        ConfigError: one cannot be read.
    """
    texts = {}
    for entry in entries:
        if _form(key, entry) in ("opa", "authzen"):
            continue
        try:
            texts[entry] = path_of(config, entry).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            known = ", ".join(builtin_names())
            raise ConfigError(f"`{key}`: `{entry}` cannot be read; give a file, or one of: {known}") from None
    return texts


def make_engine(
    config: Config, entries: Sequence[str], texts: Mapping[str, str], *, key: str = "policy"
) -> PolicyEngine:
    """Return the engine over texts that were read already.

    Raises:
        ConfigError: an entry has no known form, or an extra is not installed.
        PolicyError: a policy is not sound.
    """
    try:
        form = form_of_all(entries)
    except ValueError as error:
        raise ConfigError(f"`{key}`: {error}") from None
    match form:
        case "cedar":
            return CedarEngine.load(texts, names=config.means.names)
        case "rego":
            return _rego(config, texts, key)
        case "opa":
            return _opa(config, entries[0])
        case "authzen":
            return _authzen(config, entries[0])


def path_of(config: Config, entry: str) -> Path:
    """Where the file of an entry is; `builtin:NAME` is `NAME.cedar`, or what its suffix says."""
    if not entry.startswith(BUILTIN):
        return config.directory / entry
    name = entry.removeprefix(BUILTIN)
    # A name, never a path: `builtin:../x` must not lead out of the folder.
    return policies_dir() / Path(name if name.endswith(".rego") else f"{name}.cedar").name


def policies_dir() -> Path:
    """Where the policies that come with the gateway are: inside the package when installed, beside it in a checkout."""
    packaged = Path(__file__).parent.parent / "_policies"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent.parent / "policies"


def builtin_names() -> list[str]:
    """The policies that come with the gateway, as they are written in the configuration."""
    cedar = {f"{BUILTIN}{path.stem}" for path in policies_dir().glob("*.cedar")}
    return sorted(cedar | {f"{BUILTIN}{path.name}" for path in policies_dir().glob("*.rego")})


def _form(key: str, entry: str) -> str:
    try:
        return form_of(entry)
    except ValueError as error:
        raise ConfigError(f"`{key}`: {error}") from None


def _rego(config: Config, texts: Mapping[str, str], key: str) -> PolicyEngine:
    try:
        from mcp_authz.policy.rego import RegoEngine  # an extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("mcp_authz"):
            raise
        raise ConfigError(f"`{key}`: Rego needs an extra; run: pip install 'mcp-authz[rego]'") from None
    return RegoEngine.load(texts, query=config.policy_query)


def _opa(config: Config, url: str) -> PolicyEngine:
    from mcp_authz.policy.opa import OpaEngine  # here: who has files needs no client

    return OpaEngine(url, pdp(config))


def _authzen(config: Config, url: str) -> PolicyEngine:
    from mcp_authz.policy.authzen import AuthZenEngine

    return AuthZenEngine(url, pdp(config))


def pdp(config: Config) -> Pdp:
    """How an engine elsewhere is asked.

    Raises:
        ConfigError: the file with its token is missing, or others than its owner may read it.
    """
    from mcp_authz.policy.remote import Pdp

    file = config.pdp.token_file
    token = None if file is None else read_secret_file(config, file)
    return Pdp(timeout=timedelta(milliseconds=config.pdp.timeout_ms), token=token)
