"""What stands in those members of a record that are objects of the gateway's own is redacted, too, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.rules.record_redaction import DEFAULT, RecordRedaction
from mcp_authz.rules.redaction import read_redaction

redact = RecordRedaction(DEFAULT)
SECRET = "sk-abcdefghijklmnopqrst"


@pytest.mark.parametrize("member", ["approval", "observed", "differences"])
@pytest.mark.parametrize(
    "said", [SECRET, [SECRET], [[SECRET]], {"detail": SECRET}, [{"was": SECRET}], {"x": {"y": [SECRET]}}], ids=str
)
def test_no_secret_stands_in_an_object_of_the_gateways_own(member: str, said: Any) -> None:
    assert SECRET not in repr(redact("policy", {member: said}))


def test_what_the_gateway_itself_says_in_its_own_objects_stays() -> None:
    everything = RecordRedaction(read_redaction([r"[0-9A-Za-z]+"], []))
    own: dict[str, Any] = {
        "approval": {"hold": "h_1", "rules": ["two"], "assurance": "passkey", "by": ["user:bob"]},
        "differences": [{"decided": "permit", "would": "deny", "because": ["no-production"], "count": 3}],
    }
    told = everything("policy", own)
    assert told["approval"] == own["approval"]
    assert told["differences"][0] == {**own["differences"][0], "decided": "[redacted]"}


def test_names_and_numbers_that_callers_make_up_are_searched_too() -> None:
    assert redact("decision", {"resource": {SECRET: 1}}) == {"resource": {"[redacted]": 1}}
    card = RecordRedaction(read_redaction([r"\b4[0-9]{15}\b"], []))
    assert card("decision", {"resource": {"n": 4111111111111111}}) == {"resource": {"n": "[redacted]"}}
    assert card("decision", {"resource": {"n": [4.5, 4111111111111111]}}) == {"resource": {"n": [4.5, "[redacted]"]}}
