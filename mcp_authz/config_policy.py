"""The configuration's part about policy: its forms, how an engine elsewhere is asked, what is kept of calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcp_authz import limits
from mcp_authz.errors import ConfigError
from mcp_authz.rules.peer import read_networks
from mcp_authz.rules.record_redaction import DEFAULT
from mcp_authz.rules.redaction import Redaction, read_redaction

BUILTIN: Final = "builtin:"
Form = Literal["cedar", "rego", "opa", "authzen"]

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_FORMS: Final = (
    "a file that ends in `.cedar` or `.rego`, `builtin:NAME`, `opa+https://HOST/v1/data/PATH` or `authzen+https://HOST`"
)


class PdpConfig(BaseModel):
    """How a policy engine is asked that is not in this process."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 1000
    token_file: Annotated[str, Field(min_length=1)] | None = None


class RecordRedactConfig(BaseModel):
    """What is taken out of records before they are appended, beside what is known to be secret in any case."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fields: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(strict=False, max_length=32)
    ] = ()
    patterns: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=512)], ...], Field(strict=False, max_length=32)
    ] = ()
    defaults: bool = True

    @model_validator(mode="after")
    def _works(self) -> RecordRedactConfig:
        try:
            self.redaction  # noqa: B018 - it is made, to see whether it can be
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def redaction(self) -> Redaction:
        """All of it."""
        known = DEFAULT if self.defaults else Redaction()
        return read_redaction((*known.patterns, *self.patterns), self.fields, endings=known.endings)


class AuditConfig(BaseModel):
    """What is kept of calls beside the log, and where it is signed how far the log goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    inputs_days: Annotated[int, Field(ge=0, le=365)] = limits.INPUTS_LIFETIME.days
    evidence_days: Annotated[int, Field(ge=0, le=3650)] = limits.EVIDENCE_LIFETIME.days
    arguments: Literal["names", "redacted"] = "names"
    redact: RecordRedactConfig = RecordRedactConfig()
    proxies: tuple[str, ...] = Field(default=(), strict=False, max_length=32)
    checkpoint_minutes: Annotated[int, Field(ge=0, le=1440)] = 10
    checkpoints: tuple[str, ...] = Field(default=("file",), strict=False)
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = 0
    archive: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("keep_days")
    @classmethod
    def _long_enough(cls, days: int) -> int:
        if days and timedelta(days=days) < limits.LOG_KEPT_LEAST:
            raise ValueError(f"keep the log for {limits.LOG_KEPT_LEAST.days} days at least, or all of it with 0")
        return days

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        try:
            read_networks(proxies)
        except ValueError as error:
            raise ValueError(f"{error}; name addresses or networks, such as 10.0.0.0/8") from None
        return proxies

    @field_validator("checkpoints")
    @classmethod
    def _places(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            if place in {"file", "stdout"} or place.startswith(("file:/", "https://")):
                continue
            raise ValueError(
                f"`{place}` is no place for checkpoints; use file, file:/PATH, stdout or https://HOST/PATH"
            )
        return places

    @property
    def checkpoint_every(self) -> timedelta | None:
        """How often a checkpoint is made, where something was written since; None: never."""
        return timedelta(minutes=self.checkpoint_minutes) if self.checkpoint_minutes and self.checkpoints else None

    @property
    def kept(self) -> timedelta | None:
        """How long records of the log are kept; None: for ever."""
        return timedelta(days=self.keep_days) if self.keep_days else None

    @property
    def inputs_kept(self) -> timedelta:
        """How long; nothing is kept where it is zero."""
        return timedelta(days=min(self.inputs_days, self.evidence_days))

    @property
    def evidence_kept(self) -> timedelta:
        """How long whatever has argument values is kept once it is over."""
        return timedelta(days=self.evidence_days)


def form_of(entry: str) -> Form:
    """Return the language or protocol of one entry of `policy`; a builtin is Cedar unless its name ends in `.rego`.

    Raises:
        ValueError: it is none that there is, or its URL cannot be asked.
    """
    scheme, plus, url = entry.partition("+")
    if plus and scheme in ("opa", "authzen") and "://" in url:
        return _remote(entry, "opa" if scheme == "opa" else "authzen", url)
    if entry.startswith(BUILTIN):
        return "rego" if entry.endswith(".rego") else "cedar"
    if entry.endswith(".cedar"):
        return "cedar"
    if entry.endswith(".rego"):
        return "rego"
    raise ValueError(f"`{entry}` is no policy; give {_FORMS}")


def _remote(entry: str, form: Literal["opa", "authzen"], url: str) -> Form:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"`{entry}` is no URL") from None
    if parts.scheme not in ("http", "https") or not host or parts.fragment:
        raise ValueError(f"`{entry}`: write {form}+https://HOST, or {form}+http://HOST, without a fragment")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"`{form}+{parts.scheme}://{host}`: no credentials in the URL; set `pdp.token_file`")
    if form == "authzen" and parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError(f"`{entry}`: plain http is for localhost only; use authzen+https")
    if form == "opa" and not parts.path.startswith("/v1/data/"):
        raise ValueError(f"`{entry}`: name the rule to ask, such as {form}+{parts.scheme}://{host}/v1/data/agent/authz")
    return form


def form_of_all(entries: Sequence[str]) -> Form:
    """Return the one form of all entries; no entry at all is an empty set of Cedar policies, which denies everything.

    Raises:
        ValueError: they are of several forms, or one is named twice, or there are several engines elsewhere.
    """
    forms = {entry: form_of(entry) for entry in entries}
    if len(forms) < len(entries):
        twice = next(entry for entry in forms if list(entries).count(entry) > 1)
        raise ValueError(f"`{twice}` is named twice")
    if len(set(forms.values())) > 1:
        told = ", ".join(f"`{entry}` is {form}" for entry, form in forms.items())
        raise ValueError(f"several policies must be of one language, and these are not: {told}")
    form: Form = next(iter(forms.values()), "cedar")
    if form in ("opa", "authzen") and len(forms) > 1:
        raise ValueError("one engine elsewhere decides alone; name one URL, and load several policies there")
    return form


def require_one_form(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries, once they are known to make one policy set (`form_of_all`)."""
    form_of_all(entries)
    return entries
