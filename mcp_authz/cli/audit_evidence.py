"""What an excerpt in a file proves: some records of a log, far from any store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json
from mcp_authz.rules.evidence_checks import check_evidence, printable
from mcp_authz.rules.excerpt import Excerpted, verify_excerpt
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.verdict_checks import Finding
from mcp_authz.web.passkeys import verify_kept

_LARGEST = 64 * 1024 * 1024  # bytes of a file that is read


def read_keys(path: Path) -> dict[str, PublicKey]:
    """The public keys of a JWK Set, by thumbprint.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    listed = strict_json.parse_object(_read(path)).get("keys")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"`{path}` is no JWK Set; `mcp-authz audit keys` prints one")
    found = [PublicKey.from_jwk(one) for one in listed]
    return {key.thumbprint: key for key in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a bundle shows: its records, and what was found about the evidence."""

    records: tuple[Excerpted, ...]
    findings: tuple[Finding, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether anything in it is not as it says."""
        return any(one.verdict == "wrong" for one in self.findings)


def excerpted(path: Path, keys: Mapping[str, PublicKey]) -> Shown:
    """What an excerpt in a file shows, once its records hold.

    Raises:
        InputError, SignatureRefused: they do not.
    """
    document = strict_json.parse_object(_read(path), max_bytes=_LARGEST)
    records = verify_excerpt(document, keys)
    passkey = partial(verify_kept, public_url=str(document["gateway"]))
    return Shown(records=records, findings=printable(check_evidence(records, document["evidence"], passkey)))


def bundle_text(document: Mapping[str, Any]) -> str:
    """What a file of this bundle has: no character of it that a terminal could act on."""
    return json.dumps(document, indent=1) + "\n"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"`{path}` is larger than {_LARGEST} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
