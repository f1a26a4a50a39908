"""The configuration's part about webhooks: who is told that a call waits, in which form, and who may answer so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_OURS: Final = frozenset({"host", "connection", "content-length", "content-type", "transfer-encoding"})
_URL: Final = 2048  # characters; those of chat services are a few hundred
_Path = Annotated[str, Field(min_length=1)]


class WebhookConfig(BaseModel):
    """One receiver of messages about held calls."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: str | None = Field(default=None, repr=False)
    url_file: _Path | None = None
    template: Literal["json", "slack", "teams", "discord", "ntfy"] = "json"
    tells: Literal["summary", "everything"] = "summary"
    rules: tuple[str, ...] = Field(default=(), strict=False)
    secret_file: _Path | None = None
    header_files: dict[str, str] = {}
    allow_private: bool = False
    callback_secret_file: _Path | None = None
    people: dict[str, str] = {}

    @field_validator("url")
    @classmethod
    def _can_be_posted_to(cls, url: str | None) -> str | None:
        return None if url is None else require_webhook_url(url)

    @field_validator("header_files")
    @classmethod
    def _not_ours(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if not _HEADER.fullmatch(name) or name.lower() in _OURS or name.lower().startswith("webhook-"):
                raise ValueError(f"`{name[:64]}` is no header that could be set here")
        return files

    @model_validator(mode="after")
    def _known(self) -> WebhookConfig:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("set either `url`, or `url_file` where the address is a secret itself, and not both")
        if self.template == "json" and self.secret_file is None:
            raise ValueError("`secret_file` is missing; `mcp-authz webhooks secret FILE` writes one")
        if self.callback_secret_file is not None and (self.template, self.tells) != ("json", "everything"):
            raise ValueError(
                '`callback_secret_file` needs `template = "json"` and `tells = "everything"`: '
                "who answers must have been shown the whole call"
            )
        if self.people and self.callback_secret_file is None:
            raise ValueError("`people` are who may answer; set `callback_secret_file`")
        return self


def require_webhook_url(url: str) -> str:
    """Return `url`, known to be one that messages can be posted to: https, or http on this computer.

    Raises:
        ValueError: it is another; the message does not repeat it, because addresses of chat services are secrets.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("the address is no URL") from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError("the address must be an https URL")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("plain http is for this computer only; use https")
    if len(url) > _URL or parts.username is not None or "#" in url or not url.isascii() or not url.isprintable():
        raise ValueError("the address must have no user, password or fragment, and be plain")
    if " " in url or "\\" in url:
        raise ValueError("the address must have no space and no backslash")
    return url


def require_webhook_names(webhooks: dict[str, Any]) -> dict[str, Any]:
    """Return `webhooks`, each known to have a name that can be part of a path.

    Raises:
        ValueError: one has not.
    """
    if wrong := [name for name in webhooks if not _NAME.fullmatch(name)]:
        raise ValueError(f"`{wrong[0][:32]}` is no name; use 1 to 20 of lower-case letters, digits and hyphens")
    return webhooks


def secret_files(webhooks: Iterable[WebhookConfig]) -> set[str]:
    """Every file that these webhooks read something secret from."""
    named = {file for it in webhooks for file in (it.url_file, it.secret_file, it.callback_secret_file)}
    return {file for file in named if file is not None} | {f for it in webhooks for f in it.header_files.values()}
