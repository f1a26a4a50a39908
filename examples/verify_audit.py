"""An audit log verified by what docs/audit-format.md says alone: Python's own modules and PyNaCl, nothing of mcp-authz.

    python examples/verify_audit.py LOG.jsonl [CHECKPOINTS.txt KEYS.json]

LOG.jsonl is what `mcp-authz audit export --format chain` writes, also behind the archives of what was pruned,
CHECKPOINTS.txt what the gateway left elsewhere, KEYS.json the JWK Set of its checkpoint keys. Exits with 1 if broken.
"""

import base64
import hashlib
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey


def unb64url(text: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2), in its one spelling."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise ValueError("a checkpoint is not written as base64url has it")
    return data


def read_log(path: Path) -> tuple[int, list[str], list[Any]]:
    """The number of the record before the first, the hashes of that one and all others, and the restores on record."""
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    records = [json.loads(line) for line in lines]
    after = records[0]["seq"] - 1
    hashes = [records[0]["prev"] if after else "00" * 32]
    for line, record in zip(lines, records, strict=True):
        if record["seq"] != after + len(hashes) or record["prev"] != hashes[-1]:
            raise ValueError(f"record {after + len(hashes)} does not follow from the one before")
        hashes.append(hashlib.sha256(line).hexdigest())
    said = [record["fields"] for record in records if record["kind"] == "administration"]
    return after, hashes, [fields for fields in said if "restored" in fields]


def read_checkpoint(text: str, keys: dict[str, Any]) -> dict[str, Any]:
    """What one checkpoint says, once its signature holds (RFC 7515 section 5.2)."""
    header, payload, signature = text.split(".")
    read = json.loads(unb64url(header))
    if read.get("alg") != "EdDSA" or read.get("typ") != "audit-checkpoint+jwt" or read.get("kid") not in keys:
        raise ValueError("a checkpoint is no checkpoint, or signed by a key that is not known")
    VerifyKey(unb64url(keys[read["kid"]]["x"])).verify(f"{header}.{payload}".encode(), unb64url(signature))
    return {"epoch": 0, **json.loads(unb64url(payload)), "digest": hashlib.sha256(text.encode()).hexdigest()}


def is_lost(seq: int, hash_: str, epoch: int, restores: list[Any]) -> bool:
    """Whether this end, of this epoch, is of what was lost, as the first restore says that began a later one."""
    first = next((it for it in restores if it["epoch"] > epoch), None)
    if first is None or (epoch == first["restored"]["epoch"] and seq <= first["restored"]["sequence"]):
        return False
    lost = first["lost"] or {"exact": False}
    return not lost["exact"] or (epoch, seq) < (lost["epoch"], lost["sequence"]) or hash_ == lost["hash"]


def check(log: tuple[int, list[str], list[Any]], texts: list[str], keys: dict[str, Any]) -> int:
    """The number of the last record that a checkpoint vouches for; one must vouch for where a later log begins."""
    (after, hashes, restores), covered = log, 0
    said = [read_checkpoint(text, keys) for text in dict.fromkeys(texts)]  # a place may have got one twice
    begins = [(one, h) for one in said for h in one["heads"] if (h["seq"], h["hash"]) == (after, hashes[0])]
    if after and not begins:
        raise ValueError(f"no checkpoint says that the log goes on behind record {after}")
    epoch, chain = (begins[0][0]["epoch"], begins[0][1]["chain"]) if after else (0, hashes[1])
    restores = [{"epoch": epoch, "restored": {"epoch": -1}, "lost": None}, *restores]  # also those that were pruned
    known = {(one["n"] + 1, one["digest"]) for one in said}
    for last, one in pairwise([{"epoch": -1, "n": 0}, *said]):
        follows = (one["n"], one["prev"]) in known or (one["epoch"] > last["epoch"] and one["n"] <= said[0]["n"])
        if not follows or (one["epoch"], one["n"]) <= (last["epoch"], last["n"]):
            raise ValueError(f"checkpoint {one['n']} does not follow from one that was kept")
        seq, hash_ = next(((h["seq"], h["hash"]) for h in one["heads"] if h["chain"] == chain), (0, ""))
        lost = is_lost(seq, hash_, one["epoch"], restores)
        if not hash_ or (not lost and seq >= after and hashes[seq - after : seq - after + 1] != [hash_]):
            raise ValueError(f"checkpoint {one['n']} is of another log, or of a record {seq} that this one has not")
        covered = covered if lost else seq
    return covered


def main(log: str, checkpoints: str = "", jwks: str = "") -> int:
    """The exit status; what was found is printed."""
    try:
        read = read_log(Path(log))
        texts = Path(checkpoints).read_bytes().decode().removesuffix("\n").split("\n") if checkpoints else []
        keys = {jwk["kid"]: jwk for jwk in json.loads(Path(jwks).read_text())["keys"]} if jwks else {}
        covered = check(read, texts, keys)
    except (BadSignatureError, OSError, ValueError, KeyError, TypeError) as found:
        print(f"broken: {found}")
        return 1
    print(f"{len(read[1]) - 1} records hang together; checkpoints vouch for the first {covered}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in {2, 4} and sys.argv[1][0] != "-" else __doc__)
