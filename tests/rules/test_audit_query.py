"""What the parameters of a question mean to the hour, and which are none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mcp_authz.errors import InputError
from mcp_authz.rules.administration import COMMANDS, Role, permits, reaches_everything
from mcp_authz.rules.audit_query import asked_for, number

KINDS = ("decision", "outcome")


def test_days_are_both_among_what_is_asked_for_and_times_are_what_they_say() -> None:
    asked = asked_for({"since": "2026-01-30", "until": "2026-01-31", "agent": "agent:coder", "text": ""}, KINDS)
    assert (asked.since, asked.until) == (datetime(2026, 1, 30, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    assert asked.agent == "coder" and asked.text is None
    asked = asked_for({"since": "2026-01-31T12:00:00+02:00", "until": "2026-01-31T12:00:00Z"}, KINDS)
    assert (asked.since, asked.until) == tuple(datetime(2026, 1, 31, hour, tzinfo=UTC) for hour in (10, 12))


@pytest.mark.parametrize(
    "query",
    [
        {"since": "2026-01-31T12:00:00"},  # of no time zone: nobody can say when
        {"until": "9999-12-31"},
        {"since": "yesterday"},
        {"kind": "secret"},
        {"decision": "allow"},
        {"observed": "yes"},
        {"limits": "1"},
    ],
)
def test_what_is_no_question_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(InputError):
        asked_for(query, KINDS)


@pytest.mark.parametrize("text", ["", "-1", "1.0", "²", "٣", "1" * 16])
def test_a_number_has_few_digits_and_these_ten(text: str) -> None:
    assert number("after", "0012") == 12 and number("after", None) is None
    with pytest.raises(InputError):
        number("after", text)


def test_what_somebody_is_to_one_thing_reaches_no_other_and_who_answers_may_not_stop() -> None:
    for command, roles in COMMANDS.items():
        for role in Role:
            assert permits(command, {role}) is (role in roles)
            assert reaches_everything(command, {role}) is (role in roles & {Role.ADMIN, Role.AUDITOR}), (command, role)
    stops = {it for it in COMMANDS if it.startswith(("revoke ", "stop-", "start-"))}
    assert {it for it in stops if Role.APPROVER in COMMANDS[it]} == {"revoke approval"}
    assert not any(Role.AUDITOR in COMMANDS[it] for it in stops) and all(Role.ADMIN in COMMANDS[it] for it in stops)
    of_everybody = {"client", "person", "passkey", "tool", "server", "everything"}
    assert all(COMMANDS[f"revoke {it}"] == {Role.ADMIN} for it in of_everybody)
    assert not permits("revoke anything", set(Role)) and not reaches_everything("revoke anything", set(Role))
