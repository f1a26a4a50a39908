"""The page about the log's format says what is so: its example is made anew, byte by byte."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from examples import verify_audit
from mcp_authz.rules.checkpoint import FIRST, Checkpoint, Head, sign_checkpoint
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import GENESIS, record_bytes, record_hash
from mcp_authz.rules.merkle import root
from mcp_authz.store.facts import EventKind

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "audit-format.md").read_text()
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
DECIDED = {
    "actor": "agent:coder",
    "because": ["delegated-scope"],
    "decision": "permit",
    "subject": "user:alice",
    "tool": "acme__deploy",
}


def blocks() -> list[str]:
    """What stands in the page's fences."""
    return re.findall(r"```(?:json)?\n(.*?)```", PAGE, re.DOTALL)


def test_the_records_and_the_checkpoint_of_the_example_are_what_the_gateway_writes() -> None:
    records, hashes, checkpoint, *_ = blocks()
    first = record_bytes(
        sequence=1, previous=GENESIS, kind="configuration", at=AT, call=None, fields={"summary": "gateway started"}
    )
    second = record_bytes(sequence=2, previous=record_hash(first), kind="decision", at=AT, call="c_1", fields=DECIDED)
    assert records.encode() == first + b"\n" + second + b"\n"
    assert hashes.split() == [record_hash(first).hex(), record_hash(second).hex()]
    leaves = [record_hash(first), record_hash(second)]
    head = Head(chain=leaves[0], sequence=2, hash=leaves[1], after=0, root=root(leaves))
    made = Checkpoint(number=1, previous=FIRST, issuer="https://authz.example.com", at=AT, heads=(head,))
    assert checkpoint.strip() == sign_checkpoint(made, PrivateKey.from_seed(bytes(range(32))))


def test_the_example_verifies_by_the_page_alone_and_its_decoded_parts_are_the_checkpoints(tmp_path: Path) -> None:
    records, _, checkpoint, parts, keys = blocks()
    for name, text in (("log", records), ("checkpoints", checkpoint), ("keys", keys)):
        (tmp_path / name).write_text(text)
    assert verify_audit.main(*(str(tmp_path / name) for name in ("log", "checkpoints", "keys"))) == 0
    decoded = [verify_audit.unb64url(part).decode() for part in checkpoint.split(".")[:2]]
    assert parts.split() == decoded and json.loads(keys)["keys"][0]["kid"] in decoded[0]


def test_the_example_says_how_it_is_called_and_what_it_cannot_read() -> None:
    example = [sys.executable, str(ROOT / "examples" / "verify_audit.py")]
    done = [
        subprocess.run([*example, word], check=False, capture_output=True, text=True) for word in ("--help", "nowhere")
    ]
    asked, absent = done
    assert "LOG.jsonl [CHECKPOINTS.txt" in asked.stderr and "Traceback" not in asked.stderr + absent.stderr
    assert absent.returncode == 1 and "No such file" in absent.stdout


def test_the_page_names_every_kind_of_record_and_the_length_of_the_verifier() -> None:
    (listed,) = re.findall(r"^\| `kind` \| (.*) \|$", PAGE, re.MULTILINE)
    assert tuple(re.findall(r"`([a-z-]+)`", listed)) == get_args(EventKind)
    lines = len((ROOT / "examples" / "verify_audit.py").read_text().splitlines())
    assert f"of {lines} lines" in PAGE and lines < 100
