"""What counts as a trace, and where it comes from (W3C Trace Context section 3.2)."""

from __future__ import annotations

import pytest

from mcp_authz.rules.trace_context import TraceParent, read_traceparent, with_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("value", [GOOD, f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-more"])
def test_a_trace_parent_is_read(value: str) -> None:
    assert read_traceparent(value) == TraceParent(trace=TRACE, span=SPAN)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        GOOD.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"{GOOD}\n",
        f"cc-{TRACE}-{SPAN}-01-{'m' * 128}",
    ],
)
def test_what_is_no_trace_parent_is_ignored(value: object) -> None:
    assert read_traceparent(value) is None


def test_the_header_counts_where_the_message_says_nothing() -> None:
    other = f"00-{TRACE}-{SPAN[::-1]}-01"
    plain = {"method": "tools/call", "params": {"name": "t"}}
    assert with_traceparent(plain, GOOD)["params"]["_meta"] == {"traceparent": GOOD}
    assert plain == {"method": "tools/call", "params": {"name": "t"}}
    named = {"params": {"_meta": {"traceparent": other}}}
    assert with_traceparent(named, GOOD) == named
    for body in ({}, {"params": []}, {"params": {"_meta": 7}}):
        assert with_traceparent(body, GOOD) == body
    assert with_traceparent(plain, "nonsense") == plain and with_traceparent(plain, None) == plain
