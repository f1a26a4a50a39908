"""An audit log verified by what docs/audit-format.md says alone: Python's own modules and PyNaCl, nothing of mcp-authz.

    python examples/verify_audit.py LOG.jsonl [CHECKPOINTS.txt KEYS.json]

LOG.jsonl is what `mcp-authz audit export --format chain` writes, also behind the archives of what was pruned,
CHECKPOINTS.txt what the gateway left elsewhere, KEYS.json the JWK Set of its checkpoint keys. Exits with 1 if broken.
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
    """Base64url without padding (RFC 7515 section 2), in its one spelling."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise Broken("a checkpoint is not written as base64url has it")
    return data


def read_log(path: Path) -> tuple[int, list[str]]:
    """The number of the record before the first, and the hashes of that one, as the first names it, and all others."""
    after, hashes = 0, ["00" * 32]
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n")):
        record = json.loads(line)
        if number == 0 and record["seq"] != 1:
            after, hashes = record["seq"] - 1, [record["prev"]]
        if record["seq"] != after + len(hashes) or record["prev"] != hashes[-1]:
            raise Broken(f"record {after + len(hashes)} does not follow from the one before")
        hashes.append(hashlib.sha256(line).hexdigest())
    return after, hashes


def read_keys(path: Path) -> dict[str, VerifyKey]:
    """The Ed25519 keys by their `kid`."""
    return {jwk["kid"]: VerifyKey(unb64url(jwk["x"])) for jwk in json.loads(path.read_text())["keys"]}


def read_checkpoint(text: str, keys: dict[str, VerifyKey]) -> dict[str, Any]:
    """What one checkpoint says, once its signature holds (RFC 7515 section 5.2)."""
    header, payload, signature = text.split(".")
    read = json.loads(unb64url(header))
    if read.get("alg") != "EdDSA" or read.get("typ") != "audit-checkpoint+jwt" or read.get("kid") not in keys:
        raise Broken("a checkpoint is no checkpoint, or signed by a key that is not known")
    keys[read["kid"]].verify(f"{header}.{payload}".encode(), unb64url(signature))
    return dict(json.loads(unb64url(payload)))


def check(after: int, hashes: list[str], texts: list[str], keys: dict[str, VerifyKey]) -> int:
    """The number of the last record that a checkpoint vouches for; one must vouch for where a later log begins."""
    covered, before, chain = 0, None, hashes[1] if not after and hashes[1:] else None
    said = [read_checkpoint(text, keys) for text in texts]
    for head in [head for one in said for head in one["heads"] if (head["seq"], head["hash"]) == (after, hashes[0])]:
        chain = head["chain"]
    if after and chain is None:
        raise Broken(f"no checkpoint says that the log goes on behind record {after}")
    for text, one in zip(texts, said, strict=True):
        if before is not None and (one["n"], one["prev"]) != before:
            raise Broken(f"checkpoint {one['n']} does not follow from the one before")
        before = (one["n"] + 1, hashlib.sha256(text.encode()).hexdigest())
        covered, named = next(((h["seq"], h["hash"]) for h in one["heads"] if h["chain"] == chain), (0, None))
        if named is None or covered >= after + len(hashes) or (covered >= after and hashes[covered - after] != named):
            raise Broken(f"checkpoint {one['n']} is of another log, or of a record {covered} that this one has not")
    return covered


def main(log: str, *more: str) -> int:
    """The exit status; what was found is printed."""
    try:
        lines = Path(more[0]).read_bytes().decode().removesuffix("\n").split("\n") if more else []
        texts = [text for i, text in enumerate(lines) if lines[i - 1 : i] != [text]]  # a place may have got one twice
        after, hashes = read_log(Path(log))
        covered = check(after, hashes, texts, read_keys(Path(more[1])) if more else {})
    except (Broken, BadSignatureError, ValueError, KeyError, TypeError) as found:
        print(f"broken: {found}")
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}")
        return 2
    print(f"{len(hashes) - 1} records hang together; checkpoints vouch for the first {covered}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in {2, 4} else __doc__)
