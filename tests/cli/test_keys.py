"""The gateway's own keys at the command line."""

from __future__ import annotations

from datetime import timedelta

from mcp_authz import limits
from mcp_authz.doctor.storage import check_store
from tests.cli.desk import Desk
from tests.cli.test_doctor import case, told


def test_keys_are_rotated_once_until_the_new_one_signs(desk: Desk) -> None:
    first = {key["use"]: key for key in desk.json("keys", "list")}
    assert {use: key["state"] for use, key in first.items()} == {
        "issuer": "signing",
        "context": "signing",
        "checkpoint": "signing",
    }
    said = desk.ok("keys", "rotate", "--reason", "once a year")
    assert "is published, and signs from" in said and "keys list" in said
    refusal = desk.refused("keys", "rotate")
    assert "does not sign yet" in refusal and "--now" in refusal
    states = [(key["use"], key["state"]) for key in desk.json("keys", "list")]
    assert states == [("issuer", "signing"), ("issuer", "next"), ("context", "signing"), ("checkpoint", "signing")]
    record = desk.json("audit", "list", "--kind", "administration", "--text", "rotated")[0]["fields"]
    assert record["replaces"] == [first["issuer"]["key"]] and record["reason"] == "once a year"
    assert record["by"].startswith("user:")


def test_a_key_that_is_replaced_at_once_is_said_to_cost_something(desk: Desk) -> None:
    desk.ok("keys", "rotate")
    said = desk.ok("keys", "rotate", "--now", "--reason", "leaked")
    assert "clients sign in again" in said and "delegates again" in said
    assert "restart it" in desk.ok("keys", "rotate", "--now", "--which", "context")
    states = [(key["use"], key["state"]) for key in desk.json("keys", "list")]
    assert states[:3] == [("issuer", "revoked"), ("issuer", "revoked"), ("issuer", "signing")]
    assert states[3:5] == [("context", "revoked"), ("context", "signing")]
    assert "give it to whoever verifies" in desk.ok("keys", "rotate", "--now", "--which", "checkpoint")
    assert desk.run("keys", "rotate", "--which", "verdict").code == 2


async def test_the_doctor_knows_how_long_a_key_signs(desk: Desk) -> None:
    desk.ok("keys", "list")
    assert "issuer key" not in told(await check_store(case(desk)), "note")
    found = await check_store(case(desk, later=limits.SIGNING_KEY_AGE + timedelta(days=1)))
    assert "the same issuer key for 366 days" in told(found, "note") and "--which context" in told(found, "note")
