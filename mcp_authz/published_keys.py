"""The keys that a gateway publishes for its context tokens, as a tool server fetches and keeps them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from mcp_authz import limits
from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules import strict_json
from mcp_authz.rules.context_token import JWKS_PATH
from mcp_authz.rules.keys import PublicKey

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_TIMEOUT: Final = limits.KEYS_FETCHED.total_seconds()


class PublishedKeys:
    """The keys of one gateway; fetched when they are first needed, when they are old, and when an unknown one is named.

    Safe for use by several threads. Nobody who sends unknown key ids makes it ask more than once a minute.
    """

    def __init__(self, issuer: str, ticks: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise InputError(f"`{issuer}` must be the gateway's public URL: https, or http for localhost")
        self._url = f"{issuer}{JWKS_PATH}"
        self._ticks = ticks  # seconds that only go on
        self._keys: Mapping[str, PublicKey] = {}
        self._trouble = ""
        self._good_until = self._not_before = ticks()
        self._lock = threading.Lock()

    def known(self, kid: str) -> PublicKey | None:
        """The key of this id, without asking the gateway; None where that has to be done first."""
        return self._keys.get(kid) if self._ticks() < self._good_until else None

    def find(self, kid: str) -> PublicKey:
        """Return the key of this id; blocks while the gateway is asked, `limits.KEYS_FETCHED` at most.

        Raises:
            SignatureRefused: the gateway does not publish it, or cannot be asked.
        """
        with self._lock:
            if (key := self.known(kid)) is None and self._ticks() >= self._not_before:
                self._fetch()
                key = self.known(kid)
        if key is None:
            raise SignatureRefused(self._trouble or "the context token's `kid` is not a key that the gateway publishes")
        return key

    def _fetch(self) -> None:
        """The keys are those published now; those that were known before stay until they are old if that fails."""
        try:
            self._keys, self._trouble = _read(_get(self._url)), ""
            self._good_until = self._ticks() + limits.KEYS_KEPT.total_seconds()
            self._not_before = self._ticks() + limits.KEYS_PAUSE.total_seconds()
        except (httpx2.HTTPError, InputError, KeyRefused, TimeoutError) as error:
            why = str(error) if isinstance(error, InputError | KeyRefused) else type(error).__name__
            self._trouble = f"the gateway's keys cannot be fetched from {self._url}: {why}"
            self._not_before = self._ticks() + limits.KEYS_RETRY.total_seconds()


def read_jwks(jwks: Mapping[str, Any]) -> Mapping[str, PublicKey]:
    """Return the Ed25519 keys of a JWK Set by their ids (RFC 7517 section 5); keys of other kinds are passed over.

    Raises:
        InputError: it is no JWK Set, or a key has no id.
        KeyRefused: an Ed25519 key that is none.
    """
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not all(isinstance(jwk, dict) for jwk in keys):
        raise InputError("there is no JWK Set")
    ours = [jwk for jwk in keys if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519"]
    if not all(isinstance(jwk.get("kid"), str) for jwk in ours):
        raise InputError("a key of the JWK Set has no `kid`")
    return {jwk["kid"]: PublicKey.from_jwk(jwk) for jwk in ours}


def _read(body: bytes) -> Mapping[str, PublicKey]:
    return read_jwks(strict_json.parse_object(body, max_bytes=limits.KEYS_BYTES))


def _get(url: str) -> bytes:
    """Return what is at the URL: in time, of a sensible size, from there and from nowhere that it points to."""
    deadline, body = time.monotonic() + _TIMEOUT, b""
    with (
        httpx2.Client(timeout=_TIMEOUT / 2, trust_env=False, follow_redirects=False) as http,
        http.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
    ):
        if answer.status_code != 200:
            raise InputError(f"HTTP status {answer.status_code}")
        for chunk in answer.iter_raw(4096):
            body += chunk
            if len(body) > limits.KEYS_BYTES:
                raise InputError(f"the answer is longer than {limits.KEYS_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
    return body
