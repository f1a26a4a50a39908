"""An audit log verified by what docs/audit-format.md says alone: Python's own modules and PyNaCl, nothing of mcp-authz.

    python examples/verify_audit.py LOG.jsonl [CHECKPOINTS.txt KEYS.json]

LOG.jsonl is what `mcp-authz audit export --format chain` writes, CHECKPOINTS.txt what the gateway left elsewhere, one
in each line, KEYS.json the JWK Set of its checkpoint keys. Prints what is proved; exits with 1 where something is not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


class Broken(Exception):
    """What does not hold together."""


def unb64url(text: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_log(path: Path) -> list[str]:
    """The hash of each record, in hexadecimal; each names the one before, and they are numbered from 1."""
    hashes: list[str] = []
    previous = "00" * 32
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        record = json.loads(line)
        if record["seq"] != number or record["prev"] != previous:
            raise Broken(f"record {number} does not follow from the one before")
        previous = hashlib.sha256(line).hexdigest()
        hashes.append(previous)
    return hashes


def read_keys(path: Path) -> dict[str, VerifyKey]:
    """The Ed25519 keys by their `kid`."""
    return {jwk["kid"]: VerifyKey(unb64url(jwk["x"])) for jwk in json.loads(path.read_text())["keys"]}


def read_checkpoint(text: str, keys: dict[str, VerifyKey]) -> dict[str, Any]:
    """What one checkpoint says, once its signature holds (RFC 7515 section 5.2)."""
    header, payload, signature = text.split(".")
    read = json.loads(unb64url(header))
    if read.get("alg") != "EdDSA" or read.get("typ") != "audit-checkpoint+jwt" or read.get("kid") not in keys:
        raise Broken("a checkpoint is no checkpoint, or signed by a key that is not known")
    try:
        keys[read["kid"]].verify(f"{header}.{payload}".encode(), unb64url(signature))
    except BadSignatureError:
        raise Broken("the signature of a checkpoint does not hold") from None
    claims: dict[str, Any] = json.loads(unb64url(payload))
    return claims


def check(hashes: list[str], texts: list[str], keys: dict[str, VerifyKey]) -> int:
    """The number of the last record that a checkpoint vouches for."""
    covered, before = 0, None
    for text in texts:
        said = read_checkpoint(text, keys)
        if before is not None and (said["n"], said["prev"]) != (before[0] + 1, before[1]):
            raise Broken(f"checkpoint {said['n']} does not follow from the one before")
        before = (said["n"], hashlib.sha256(text.encode()).hexdigest())
        heads = [head for head in said["heads"] if hashes and head["chain"] == hashes[0]]
        if not heads:
            raise Broken(f"checkpoint {said['n']} is of another log")
        covered = heads[0]["seq"]
        if covered > len(hashes) or hashes[covered - 1] != heads[0]["hash"]:
            raise Broken(f"checkpoint {said['n']} names another record {covered} than the log has")
    return covered


def main(log: str, *more: str) -> int:
    """The exit status; what was found is printed."""
    try:
        hashes = read_log(Path(log))
        covered = check(hashes, Path(more[0]).read_text().split(), read_keys(Path(more[1]))) if len(more) == 2 else 0
    except (Broken, ValueError, KeyError) as found:
        print(f"broken: {found}")
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}")
        return 2
    print(f"{len(hashes)} records hang together; checkpoints vouch for the first {covered}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in {2, 4} else __doc__)
