"""The log for other programs: whole, in four forms, with nothing in it that the log has not."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import Any

import pytest

from mcp_authz.installation import utc_now
from mcp_authz.rules import ocsf, record_csv
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.facts import EventKind
from mcp_authz.store.ports import Event
from tests.cli.desk import ROOT, Desk, held_call, hold, settle

CANARY = "canary-8c1f-of-the-arguments"

# What version 1.8.0 of the schema requires of each class that is used, base event included.
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {6003: {"actor", "api", "src_endpoint"}, 3002: {"user"}, 3003: {"user"}, 3004: {"entity"}}
ONE_OF = {3002: {"service", "dst_endpoint"}, 3003: {"privileges", "groups", "iam_roles"}}
ACTIVITIES = {
    6003: {0, 1, 2, 3, 4, 99},
    3002: {0, *range(1, 8), 99},
    3003: {0, 1, 2, 3, 99},
    3004: {0, *range(1, 14), 99},
}


def conforms(made: dict[str, Any]) -> None:
    """The event has what its class requires, each of the type that it must have."""
    of = made["class_uid"]
    assert made.keys() >= BASE | REQUIRED[of] and (of not in ONE_OF or ONE_OF[of] & made.keys())
    assert made["category_uid"] == of // 1000 and made["activity_id"] in ACTIVITIES[of]
    assert made["type_uid"] == of * 100 + made["activity_id"]
    assert made["severity_id"] in {0, 1, 2, 3, 4, 5, 6, 99} and made["status_id"] in {0, 1, 2, 99}
    assert type(made["time"]) is int and 1.6e12 < made["time"] < 4e12  # milliseconds
    assert made["metadata"]["version"] == "1.8.0" and made["metadata"]["product"]["name"] == "mcp-authz"
    assert made.get("action_id", 1) in {1, 2, 99} and made.get("disposition_id", 1) in {*range(1, 28)}
    assert {"user", "session", "app_name"} & made["actor"].keys()
    for user in (made["actor"].get("user"), made.get("user")):
        assert user is None or (user["name"] and user["type_id"] in {0, 1, 4})
    if of == 6003:
        assert made["api"]["operation"] and made["src_endpoint"]["name"]
        assert "request" not in made["api"] or made["api"]["request"]["uid"]
    if of == 3004:
        assert made["entity"]["name"]


async def kept(desk: Desk) -> None:
    """A log with what people and agents did, and with a call whose input is kept beside it."""
    async with desk.open() as here:
        cast = await settle(here)
        await hold(here, held_call(cast))
        fields = {"actor": "agent:coder", "tool": "acme__deploy", "decision": "permit", "action": "=HYPERLINK(1)"}
        given = {"arguments": {"token": CANARY}}
        await here.store.append(Event(kind="decision", at=utc_now(), call="c_1", fields=fields, input=given))


async def test_a_chain_is_verified_by_a_program_that_knows_nothing_of_us(desk: Desk) -> None:
    await kept(desk)
    out = desk.path("log.jsonl")
    done = desk.run("audit", "export", "--format", "chain", "--out", out)
    head = desk.json("audit", "verify")
    assert done.code == 0 and f"up to record {head['records']}, hash {head['head']}" in done.err
    assert out.stat().st_mode & 0o777 == 0o600 and len(out.read_bytes().splitlines()) == head["records"]
    verify = [sys.executable, str(ROOT / "examples" / "verify_audit.py"), str(out)]
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0  # noqa: ASYNC221
    out.write_bytes(out.read_bytes().replace(b"alice", b"alicf", 1))
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 1  # noqa: ASYNC221
    assert "leave the filters out" in desk.refused("audit", "export", "--format", "chain", "--kind", "policy")


async def test_each_form_has_every_record_and_no_argument(desk: Desk) -> None:
    await kept(desk)
    everything = desk.json("audit", "list", "--limit", "1000")
    outs = {name: desk.run("audit", "export", "--format", name).out for name in ("chain", "jsonl", "csv", "ocsf")}
    assert all(CANARY not in out for out in outs.values())
    assert [json.loads(line) for line in outs["jsonl"].splitlines()] == everything
    rows = list(csv.DictReader(io.StringIO(outs["csv"], newline="")))
    assert [(row["sequence"], row["hash"]) for row in rows] == [(str(it["sequence"]), it["hash"]) for it in everything]
    assert tuple(rows[0]) == record_csv.COLUMNS and rows[-1]["action"] == "'=HYPERLINK(1)"
    events = [json.loads(line) for line in outs["ocsf"].splitlines()]
    assert [event["metadata"]["uid"] for event in events] == [it["hash"] for it in everything]
    for event in events:
        conforms(event)
    some = desk.run("audit", "export", "--format", "jsonl", "--decision", "hold", "--store", desk.store).out
    assert [json.loads(line)["fields"]["decision"] for line in some.splitlines()] == ["hold"]


async def test_what_cannot_be_written_whole_is_not_there(desk: Desk) -> None:
    await kept(desk)
    out = desk.path("out.csv")
    out.write_text("the one before")
    (desk.path("folder")).mkdir()
    assert desk.run("audit", "export", "--format", "csv", "--out", desk.path("folder")).code == 1
    assert desk.run("audit", "export", "--format", "csv", "--out", desk.path("nowhere") / "x").code == 1
    assert desk.run("audit", "export", "--format", "csv", "--out", out, "--store", desk.config).code == 1
    assert out.read_text() == "the one before"
    assert not [path.name for path in desk.directory.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_begins_like_a_formula(text: str) -> None:
    event = Event(kind="policy", at=utc_now(), call=text, fields={"actor": text, "because": [text], "reason": text})
    (row,) = csv.reader(io.StringIO(record_csv.row(event, sequence=1, hash_=bytes(32)), newline=""))
    assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    actor = row[record_csv.COLUMNS.index("actor")]
    assert actor.startswith("'") and actor.replace("'", "") == text
    assert row[record_csv.COLUMNS.index("sentence")].replace("'", "") == sentence(event)


@pytest.mark.parametrize("kind", EventKind.__args__)
@pytest.mark.parametrize("decision", [None, "permit", "hold", "deny", "replay"])
def test_every_kind_of_record_is_an_event_of_the_schema(kind: EventKind, decision: str | None) -> None:
    for fields in ({}, {"actor": "agent:coder", "by": "user:alice", "tool": "t", "trace": "0" * 31 + "1"}):
        given = fields if decision is None else {**fields, "decision": decision, "reason": "x", "hazard": "read"}
        event = Event(kind=kind, at=utc_now(), call=None, fields=given)
        made = ocsf.event(event, sequence=7, hash_=bytes(32), version="1")
        conforms(made)
        assert made["unmapped"].items() >= {"at": timestamp(event.at), "kind": kind, **given}.items()
