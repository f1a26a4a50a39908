"""What is said of a bundle that somebody made up: no more than its checkpoints sign, and in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.cli.audit_evidence import Shown
from mcp_authz.cli.audit_shown import say_shown
from mcp_authz.errors import InputError
from mcp_authz.rules.excerpt import Excerpted

AT = "2026-11-21T12:00:00.000000Z"


def shown(kind: str, **fields: Any) -> Shown:
    body = {"at": AT, "call": "c_1", "fields": fields}
    return Shown(records=(Excerpted(sequence=7, kind=kind, body=body, checkpoint=None),), findings=())


def test_what_no_checkpoint_covers_has_no_check_mark(capsys: pytest.CaptureFixture[str]) -> None:
    say_shown(shown("decision", actor="agent:coder\x1b[31m", tool="x", decision="permit"), json=False)
    told = capsys.readouterr().out
    assert "whoever made this file says so" in told and "\x1b" not in told
    assert (
        "? 0 of 1 records are in the log that the gateway's checkpoints sign" in told and "\N{CHECK MARK}" not in told
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"chain": 7},
        {"decision": "permit", "approval": 7},
        {"decision": "hold", "rules": 7},
        {"decision": "deny", "missing": [7]},
        {"resource": [1]},
    ],
    ids=str,
)
def test_a_record_that_no_gateway_writes_is_told_of_in_a_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="none that a gateway writes"):
        say_shown(shown("decision", **fields), json=False)
