"""What the configuration of webhooks means: receivers with their secrets read, so that a mistake stops the start."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from mcp_authz.config import Config, read_secret_file
from mcp_authz.config_webhooks import WebhookConfig, require_webhook_url
from mcp_authz.errors import ConfigError, InputError
from mcp_authz.rules.webhook_signature import WebhookSecret, read_secret
from mcp_authz.settings import approval_floor
from mcp_authz.webhooks import Webhook, poster_for

_HEADER_VALUE: Final = 4096  # characters


def make_webhooks(config: Config) -> tuple[Webhook, ...]:
    """Return every receiver, in the order of the configuration.

    Raises:
        ConfigError: a file is missing, can be read by others, or has no such secret; a rule is none; two webhooks
            share the secret of their answers, so that the answer of one could be shown to the gateway as the other's.
    """
    made = tuple(_webhook(config, name, it) for name, it in config.webhooks.items())
    known = approval_floor(config).rules
    callbacks: dict[bytes, str] = {}
    for it in made:
        if unknown := sorted(it.rules - known.keys()):
            raise ConfigError(f"`webhooks.{it.name}.rules`: there is no approval rule `{unknown[0]}`")
        if it.callback is None:
            continue
        if it.secret is not None and it.secret.key == it.callback.key:
            raise ConfigError(f"`webhooks.{it.name}`: answers need another secret than messages")
        if (other := callbacks.setdefault(it.callback.key, it.name)) != it.name:
            raise ConfigError(f"`webhooks.{it.name}`: its answers need another secret than those of `{other}`")
    return made


def _webhook(config: Config, name: str, it: WebhookConfig) -> Webhook:
    url, topic = _url(config, name, it), ""
    if it.template == "ntfy":
        url, topic = _topic(name, url)
    return Webhook(
        name=name,
        url=url,
        topic=topic,
        template=it.template,
        tells=it.tells,
        rules=frozenset(it.rules),
        secret=_secret(config, name, it.secret_file),
        headers={header: _header(config, name, file) for header, file in it.header_files.items()},
        poster=poster_for(allow_private=it.allow_private),
        callback=_secret(config, name, it.callback_secret_file),
        people=it.people,
    )


def _url(config: Config, name: str, it: WebhookConfig) -> str:
    if it.url_file is None:
        return it.url or ""
    try:
        return require_webhook_url(read_secret_file(config, it.url_file))
    except ValueError as error:
        raise ConfigError(f"`webhooks.{name}.url_file`: {error}") from None


def _topic(name: str, url: str) -> tuple[str, str]:
    """Where JSON is published to, and the topic: the last part of the address, as ntfy shows it."""
    parts = urlsplit(url)
    root, _, topic = parts.path.rpartition("/")
    if not topic or parts.query:
        raise ConfigError(f"`webhooks.{name}`: give the address of the topic, such as https://ntfy.sh/TOPIC")
    return urlunsplit((parts.scheme, parts.netloc, f"{root}/", "", "")), topic


def _secret(config: Config, name: str, file: str | None) -> WebhookSecret | None:
    if file is None:
        return None
    try:
        return read_secret(read_secret_file(config, file))
    except InputError as error:
        raise ConfigError(
            f"`webhooks.{name}`: the secret in `{file}` cannot be used: {error}; `mcp-authz webhooks secret FILE` "
            "writes one"
        ) from None


def _header(config: Config, name: str, file: str) -> str:
    value = read_secret_file(config, file)
    if not value or len(value) > _HEADER_VALUE or not value.isascii() or not value.isprintable():
        raise ConfigError(f"`webhooks.{name}.header_files`: `{file}` has no value that a header could have")
    return value
