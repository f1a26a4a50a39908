"""The configuration: one TOML file, read once, every key with a default or an error that says how to set it."""

from __future__ import annotations

import hashlib
import os
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mcp_authz.config_approval import ApprovalConfig, WaitingConfig
from mcp_authz.config_obligations import (
    BudgetConfig,
    NoticeConfig,
    RedactConfig,
    means_of,
    require_desktop,
    require_names,
)
from mcp_authz.config_people import AdministrationConfig, ClientsConfig, EnterpriseConfig, SignInConfig, require_words
from mcp_authz.config_policy import AuditConfig, PdpConfig, require_one_form
from mcp_authz.config_telemetry import MetricsConfig, OtelConfig
from mcp_authz.config_webhooks import WebhookConfig, require_webhook_names
from mcp_authz.errors import ConfigError
from mcp_authz.rules.obligation import Means

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,19}$")]
RESERVED_SERVERS = frozenset({"authz", "mcp", "dev", "holds"})
_SOCKET_PATH: Final = 100  # bytes; the kernel takes 104 to 108


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ToolConfig(_Strict):
    """What the operator says of one tool, or of every tool whose name fits a pattern such as `list_*`."""

    action: str | None = None
    hazard: Literal["read", "write", "destructive"] = "destructive"
    scopes: tuple[str, ...] = Field(default=(), strict=False)
    resource: dict[str, str] = {}
    approval: str | None = None
    proof: Literal["bearer", "dpop", "signed"] = "bearer"

    @field_validator("action")
    @classmethod
    def _not_the_gateways(cls, action: str | None) -> str | None:
        if action == "delegate":
            raise ValueError("`delegate` is what policy calls a delegation; call the tool's action something else")
        return action


class ServerConfig(_Strict):
    """One tool server: a command to start (stdio) or a URL (Streamable HTTP), and what its tools are."""

    command: tuple[str, ...] | None = Field(default=None, strict=False)
    url: str | None = None
    env: dict[str, str] = {}
    env_files: dict[str, str] = {}
    headers: dict[str, str] = {}
    header_files: dict[str, str] = {}
    cwd: str | None = None
    environment: str = "local"
    preset: str | None = None
    call_timeout: Annotated[int, Field(ge=1, le=3600)] = 300
    elicitation: bool = True
    context: bool = False
    context_audience: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    context_subject: Literal["pairwise", "plain"] = "pairwise"
    mode: Literal["enforce", "observe"] = "enforce"
    observe_destructive: tuple[str, ...] = Field(default=(), strict=False)
    tools: dict[str, ToolConfig] = {}

    @model_validator(mode="after")
    def _one_transport(self) -> ServerConfig:
        if (self.command is None) == (self.url is None):
            raise ValueError("set either `command` (a list: program and arguments) or `url`, and not both")
        if self.command is not None and not self.command:
            raise ValueError("`command` is empty; give the program and its arguments")
        if self.url is not None and urlsplit(self.url).scheme not in {"http", "https"}:
            raise ValueError("`url` must begin with http:// or https://")
        if self.url is not None and (self.env or self.env_files or self.cwd):
            raise ValueError("`env`, `env_files` and `cwd` belong to servers with a `command`")
        if self.command is not None and (self.headers or self.header_files):
            raise ValueError("`headers` and `header_files` belong to servers with a `url`")
        return self

    @model_validator(mode="after")
    def _context_asked_for(self) -> ServerConfig:
        if not self.context and self.model_fields_set & {"context_audience", "context_subject"}:
            raise ValueError("`context_audience` and `context_subject` need `context = true`")
        return self


class ProofConfig(_Strict):
    """The least proof that a call needs, by the hazard of its tool."""

    read: Literal["bearer", "dpop", "signed"] = "bearer"
    write: Literal["bearer", "dpop", "signed"] = "bearer"
    destructive: Literal["bearer", "dpop", "signed"] = "bearer"


class KeysConfig(_Strict):
    """How old the keys of agents become."""

    rotate_days: Annotated[int, Field(ge=0, le=3650)] = 90

    @property
    def rotate_after(self) -> timedelta | None:
        """The age at which `connect` replaces the keys that it keeps; None: never by itself."""
        return timedelta(days=self.rotate_days) if self.rotate_days else None


class ImpersonationConfig(_Strict):
    """One agent that tool servers may take for one person, and for what."""

    agent: str
    person: str
    scopes: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Config(_Strict):
    """Everything an operator sets."""

    public_url: str = "http://localhost:8642"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    data_dir: str | None = None
    policy: tuple[str, ...] = Field(default=("builtin:scopes_and_hazard",), strict=False)
    shadow_policy: tuple[str, ...] = Field(default=(), strict=False)
    policy_query: str | None = None
    pdp: PdpConfig = PdpConfig()
    audit: AuditConfig = AuditConfig()
    metrics: MetricsConfig = MetricsConfig()
    otel: OtelConfig = OtelConfig()
    budgets: dict[str, BudgetConfig] = {}
    notices: dict[str, NoticeConfig] = {}
    redact: dict[str, RedactConfig] = {}
    servers: dict[Name, ServerConfig] = {}
    approval: dict[str, ApprovalConfig] = {}
    waiting: WaitingConfig = WaitingConfig()
    webhooks: dict[str, WebhookConfig] = {}
    proof: ProofConfig = ProofConfig()
    roles: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] = {}
    impersonation: tuple[ImpersonationConfig, ...] = Field(default=(), strict=False)
    keys: KeysConfig = KeysConfig()
    notify: Literal["desktop", "none"] = "desktop"
    dpop_nonce: bool = True
    administration: AdministrationConfig = AdministrationConfig()
    sign_in: SignInConfig = SignInConfig()
    clients: ClientsConfig = ClientsConfig()
    enterprise: EnterpriseConfig | None = None
    scopes: dict[str, str] = {}
    source: Path = Field(default=Path(), exclude=True)

    @field_validator("public_url")
    @classmethod
    def _plain_origin(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
            raise ValueError("must be an origin such as https://authz.example.com or http://localhost:8642")
        if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
            raise ValueError("plain http is for localhost only; use https")
        return url.rstrip("/")

    @field_validator("scopes")
    @classmethod
    def _in_plain_words(cls, scopes: dict[str, str]) -> dict[str, str]:
        return require_words(scopes)

    @field_validator("policy", "shadow_policy", mode="before")
    @classmethod
    def _one_or_many(cls, policy: Any) -> Any:
        return (policy,) if isinstance(policy, str) else policy

    @field_validator("policy", "shadow_policy")
    @classmethod
    def _of_one_form(cls, policy: tuple[str, ...]) -> tuple[str, ...]:
        return require_one_form(policy)

    @field_validator("servers")
    @classmethod
    def _not_reserved(cls, servers: dict[str, ServerConfig]) -> dict[str, ServerConfig]:
        for name in RESERVED_SERVERS & servers.keys():
            raise ValueError(f"`{name}` is a reserved name; call the server something else")
        return servers

    @field_validator("webhooks")
    @classmethod
    def _in_a_path(cls, webhooks: dict[str, WebhookConfig]) -> dict[str, WebhookConfig]:
        return require_webhook_names(webhooks)

    @field_validator("budgets", "notices", "redact")
    @classmethod
    def _named(cls, table: dict[str, Any]) -> dict[str, Any]:
        require_names(table)
        return table

    @model_validator(mode="after")
    def _shown(self) -> Config:
        require_desktop(self.notices.values(), self.notify)
        return self

    @property
    def means(self) -> Means:
        """What obligations of policies are carried out with."""
        return means_of(self.budgets, self.notices, self.redact)

    @property
    def resource(self) -> str:
        """The resource URI of the MCP endpoint: audience of every access token (RFC 8707)."""
        return f"{self.public_url}/mcp"

    @property
    def listen_port(self) -> int:
        """The port to bind: `port`, else the one in `public_url`, else the scheme's own."""
        parts = urlsplit(self.public_url)
        return self.port if self.port is not None else parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def directory(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self.source.parent if self.source != Path() else self.data

    @property
    def data(self) -> Path:
        """Where store and keys live."""
        if self.data_dir is None:
            return user_data_dir()
        return (self.source.parent if self.source != Path() else user_data_dir()) / self.data_dir

    @property
    def archive(self) -> Path | None:
        """The folder for what is pruned from the log; None: it goes nowhere."""
        return None if self.audit.archive is None else self.directory / self.audit.archive

    @property
    def socket(self) -> Path:
        """The Unix socket of the gateway on this data directory; elsewhere when its path would be too long for one."""
        beside = self.data / "gateway.sock"
        if len(os.fsencode(beside)) <= _SOCKET_PATH:
            return beside
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mcp-authz-{os.getuid()}" / f"{name}.sock"

    @property
    def lock(self) -> Path:
        """The file that the one gateway on this data directory holds locked."""
        return self.data / "gateway.lock"

    def agent_key(self, name: str) -> Path:
        """Where `wrap` puts the key of an agent, and `connect` looks for it."""
        return self.data / "agents" / f"{name}.pem"


def user_config_dir() -> Path:
    """The user's configuration directory of this program (XDG Base Directory)."""
    return _base("XDG_CONFIG_HOME", ".config") / "mcp-authz"


def user_data_dir() -> Path:
    """The user's data directory of this program (XDG Base Directory)."""
    return _base("XDG_DATA_HOME", ".local/share") / "mcp-authz"


def _base(variable: str, default: str) -> Path:
    # The specification has relative values ignored: they would lead into the working directory.
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / default


def find_config(explicit: Path | None) -> Path:
    """Return the file to read: `--config`, `$MCP_AUTHZ_CONFIG`, the user's own; never one in the working directory.

    Raises:
        ConfigError: the one that was named, or any at all, does not exist.
    """
    if explicit is not None:
        return explicit
    if named := os.environ.get("MCP_AUTHZ_CONFIG"):
        return Path(named)
    own = user_config_dir() / "gateway.toml"
    if not own.exists():
        raise ConfigError(
            f"no configuration found: write {own}, or name one with --config FILE or $MCP_AUTHZ_CONFIG "
            "(the working directory is never searched)"
        )
    return own


def load_config(path: Path) -> Config:
    """Return the configuration in `path`, every key known and of the right type.

    Raises:
        ConfigError: one sentence that names the file, the key, and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file `{path}` does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file `{path}` cannot be read: {error}") from None
    try:
        return parse_config(tomllib.loads(text), source=path.resolve())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_config(values: Mapping[str, Any], *, source: Path = Path()) -> Config:
    """Return the configuration that these values make.

    Raises:
        ConfigError: naming the key that is unknown, missing or of the wrong type.
    """
    try:
        return Config(**values, source=source)
    except ValidationError as error:
        where = source.name or "configuration"
        raise ConfigError("; ".join(f"{where}: {_sentence(problem)}" for problem in error.errors()[:5])) from None


def _sentence(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "the file"
    if problem["type"] == "extra_forbidden":
        return f"unknown key `{key}`; remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"`{key}` is missing"
    if problem["type"] == "string_pattern_mismatch" and problem["loc"][-1] == "[key]":
        return f"`{key}` is no server name; use 1 to 20 of lower-case letters, digits and hyphens"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("a valid tuple", "a list")
    return f"`{key}`: {message[0].lower()}{message[1:]}"


def read_secret_file(config: Config, name: str) -> str:
    """Return the content of a secret file, without the line break at its end.

    Raises:
        ConfigError: the file is missing, or others than its owner may read it.
    """
    path = config.directory / name
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"secret file `{path}` cannot be read: {why}") from None
    if mode & 0o077:
        raise ConfigError(f"secret file `{path}` can be read by others; run: chmod 600 {path}")
    return text
