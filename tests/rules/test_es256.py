"""Private keys on P-256: what they sign is verified by the public key that they show, and they print nothing."""

from __future__ import annotations

import copy
from datetime import UTC, datetime

import pytest

from mcp_authz.errors import KeyRefused, SignatureRefused
from mcp_authz.rules import dpop
from mcp_authz.rules.es256 import P256Key, P256PrivateKey
from mcp_authz.rules.keys import PrivateKey

NOW = datetime(2026, 7, 28, 12, tzinfo=UTC)
URL = "https://as.example.com/token"


def test_a_key_comes_back_from_its_pem_and_its_proofs_count() -> None:
    key = P256PrivateKey.generate()
    again = P256PrivateKey.from_pem(key.to_pem())
    assert again.public == key.public == P256Key.from_jwk(key.public.jwk)
    proof = dpop.make_proof(again, method="POST", url=URL, at=NOW, id="d_1")
    read = dpop.read_proof(proof, method="POST", url=URL, now=NOW, access_token=None, nonces=None)
    assert read.key == key.public.thumbprint
    with pytest.raises(SignatureRefused):
        key.public.verify(b"another message", again.sign(b"a message"))


def test_a_key_of_another_kind_is_refused_and_none_is_printed_or_copied() -> None:
    for text in (PrivateKey.generate().to_pem(), "no key", P256PrivateKey.generate().to_pem()[:-40]):
        with pytest.raises(KeyRefused):
            P256PrivateKey.from_pem(text)
    key = P256PrivateKey.generate()
    assert repr(key) == "P256PrivateKey(<redacted>)"
    with pytest.raises(TypeError):
        copy.copy(key)
