"""What happened, counted for Prometheus: each record of the log once, under names that no caller makes up.

An agent or a person is no label, nor is a tool: who chooses names would choose how many numbers are kept. Servers are
those of the configuration; of every other label so many values are told apart, and the rest is `other`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from mcp_authz.rules.sentence import Written

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"
_VALUES: Final = 64  # of one label
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,63}")
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_HELP: Final = {
    "mcp_authz_decisions_total": "Decisions about calls.",
    "mcp_authz_outcomes_total": "How calls that were forwarded ended.",
    "mcp_authz_verdicts_total": "Answers to held calls, by how they were proved.",
    "mcp_authz_refusals_total": "Requests refused before it was known who sent them.",
    "mcp_authz_policy_reload_failures_total": "Changes of policy files that do not decide, because they cannot.",
    "mcp_authz_records_total": "Records of the log.",
    "mcp_authz_checkpoints_undelivered_total": "Checkpoints that a place which keeps them did not take at once.",
}
_SECONDS: Final = "mcp_authz_call_seconds"
_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters since the start of this process."""

    def __init__(self, servers: Collection[str]) -> None:
        self._servers = frozenset(servers)
        self._counts: dict[str, Counter[_Labels]] = {name: Counter() for name in _HELP}
        self._known: dict[str, set[str]] = defaultdict(set)
        self._slots: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()

    def hear(self, record: Written) -> None:
        """The record is counted."""
        fields = record.fields
        self._count("mcp_authz_records_total", kind=record.kind)
        match record.kind:
            case "decision":
                self._count(
                    "mcp_authz_decisions_total",
                    decision=fields.get("decision"),
                    reason=fields.get("reason", ""),
                    server=self._server(fields),
                    hazard=fields.get("hazard", ""),
                )
            case "outcome":
                self._outcome(fields)
            case "approval" if "verdict" in fields:
                self._count("mcp_authz_verdicts_total", verdict=fields["verdict"], assurance=fields.get("assurance"))
            case "refusals":
                more = fields.get("count")
                self._count("mcp_authz_refusals_total", more if type(more) is int else 1, reason=fields.get("reason"))
            case "checkpoint" if "record" in fields:  # which tells of places, and whether they lack something
                for place in fields.get("behind", ()):
                    self._count("mcp_authz_checkpoints_undelivered_total", place=str(place).partition(":")[0])
            case "policy" if "error" in fields:
                self._count("mcp_authz_policy_reload_failures_total", policy=fields.get("key"))

    def _outcome(self, fields: Mapping[str, Any]) -> None:
        self._count("mcp_authz_outcomes_total", outcome=fields.get("outcome"), server=self._server(fields))
        took = fields.get("milliseconds")
        if type(took) is int:
            outcome = self._value("outcome", fields.get("outcome"))
            slots = self._slots.setdefault(outcome, [0] * (len(_BUCKETS) + 1))
            slots[next((slot for slot, most in enumerate(_BUCKETS) if took <= most * 1000), len(_BUCKETS))] += 1
            self._sums[outcome] += took

    def _server(self, fields: Mapping[str, Any]) -> str:
        server = fields.get("server") or str(fields.get("tool", "")).partition("__")[0]
        return server if isinstance(server, str) and server in self._servers else ""

    def _count(self, metric: str, more: int = 1, **labels: object) -> None:
        self._counts[metric][tuple((name, self._value(name, value)) for name, value in labels.items())] += more

    def _value(self, label: str, value: object) -> str:
        known = self._known[label]
        if value == "" or (isinstance(value, str) and value in known):
            return str(value)
        if not isinstance(value, str) or len(known) >= _VALUES or not _PLAIN.fullmatch(value):
            return OTHER
        known.add(value)
        return value

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Everything in Prometheus' text format, with what is true just now: name, what it is, and how much."""
        return "\n".join([*self._lines(), *_gauge_lines(gauges), ""])

    def _lines(self) -> Iterator[str]:
        for name, counts in self._counts.items():
            yield from _about(name, _HELP[name], "counter")
            yield from (f"{name}{_written(labels)} {count}" for labels, count in sorted(counts.items()))
        yield from _about(_SECONDS, "How long forwarded calls took.", "histogram")
        for outcome, slots in sorted(self._slots.items()):
            below = 0
            for most, here in zip((*map(str, _BUCKETS), "+Inf"), slots, strict=True):
                below += here
                yield f"{_SECONDS}_bucket{_written((('le', most), ('outcome', outcome)))} {below}"
            yield f"{_SECONDS}_sum{_written((('outcome', outcome),))} {self._sums[outcome] / 1000}"
            yield f"{_SECONDS}_count{_written((('outcome', outcome),))} {below}"


def _gauge_lines(gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    for name, (help_, value) in gauges.items():
        yield from _about(name, help_, "gauge")
        yield f"{name} {value:g}" if value < 1e6 else f"{name} {int(value)}"


def _about(name: str, help_: str, type_: str) -> tuple[str, str]:
    return f"# HELP {name} {help_}", f"# TYPE {name} {type_}"


def _written(labels: _Labels) -> str:
    # Nothing is escaped: what a label may be has neither a quotation mark nor a backslash nor a line break.
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"
