"""The figures of a run as people read them."""

from __future__ import annotations

import statistics
from typing import Any

ON = (
    "G has on: bearer token (Ed25519, issuer, audience, times), standing of agent, key, person, grant, session and\n"
    "link read from the store at every call, chain, pinned definition, input schema, scopes, Cedar with the default\n"
    "policy, decision record before forwarding, outcome record before answering, hash-chained, synchronous=FULL."
)


def show(run: dict[str, Any]) -> str:
    """The table, the ratios, and what was on."""
    conditions, rows = run["conditions"], run["contestants"]
    lines = [
        f"{'':8}{'req/s':>9}{'CPU us':>9}{'half p50':>10}{'p99 ms':>9}{'alone p50':>11}{'p99 ms':>9}"
        f"{'MB':>6}{'start s':>9}{'wrong':>7}"
    ]
    for row in rows:
        half, alone = row["half"], row["alone"]
        lines.append(
            f"{row['key']:8}{_mid(row['per_second']):>9.0f}{_mid(row['cpu']):>9.0f}"
            f"{half['p50'] / 1e3:>10.2f}{half['p99'] / 1e3:>9.2f}{alone['p50'] / 1e3:>11.2f}{alone['p99'] / 1e3:>9.2f}"
            f"{row['memory'] / 1e6:>6.0f}{row['start']:>9.2f}{row['wrong']:>7}"
        )
    lines += ["", *(f"{row['key']:8}{row['what']}" for row in rows), "", *_ratios(rows), "", ON, "", *_said(conditions)]
    return "\n".join(lines)


def show_proofs(run: dict[str, Any]) -> str:
    """What chains and proofs cost, in microseconds."""
    lines = ["what proof costs, one at a time, microseconds (median of nine batches)", ""]
    return "\n".join([*lines, *(f"{name:<64}{taken:>8.0f}" for name, taken in run["proofs"].items())])


def show_policies(run: dict[str, Any]) -> str:
    """What decisions and lists cost, in microseconds."""
    lines = ["what decisions and lists cost, one at a time, microseconds (median of nine batches)", ""]
    return "\n".join([*lines, *(f"{name:<64}{taken:>8.0f}" for name, taken in run["policies"].items())])


def show_holds(run: dict[str, Any]) -> str:
    """What held calls cost, in milliseconds where nothing else is said."""
    took, waiting = run["holds"], run["holds"]["waiting"]
    lines = [f"{'from the verdict to the result, ms':<44}{'p50':>10}{'p99':>10}"]
    for where in ("one process", "two processes"):
        lines.append(f"{where:<44}{took[where]['p50']:>10.1f}{took[where]['p99']:>10.1f}")
    lines += ["", f"{waiting['calls']} calls that wait at once"]
    lines += [f"  {name:<42}{value:>10.1f}" for name, value in waiting.items() if name != "calls"]
    lines += ["", f"{'beside holds that are over, ms':<30}{'held':>10}{'answered':>10}{'page':>10}{'ids':>10}"]
    for row in took["older"]:
        columns = "".join(f"{row[name]:>10.1f}" for name in ("opened", "answered", "page", "ids"))
        lines.append(f"{row['older']:<30}{columns}")
    return "\n".join(lines)


def show_revocation(run: dict[str, Any]) -> str:
    """How soon a revocation counts, in milliseconds."""
    lines = [f"{'from before a revocation is written, ms':<44}{'p50':>10}{'p99':>10}"]
    for where, took in run["revocation"].items():
        for what, how in (("refused", "the next call is refused"), ("ended", "what runs has ended")):
            lines.append(f"{f'{where}: {how}':<44}{took[what]['p50']:>10.1f}{took[what]['p99']:>10.1f}")
    return "\n".join(lines)


def show_audit(run: dict[str, Any]) -> str:
    """What the log costs."""
    found = run["audit"]
    lines = [f"appends per second, {writers:>2} writers {each:>12.0f}" for writers, each in found["appends"].items()]
    lines += [
        f"verified per second, {int(length):>9,} records {each:>8.0f}" for length, each in found["verified"].items()
    ]
    lines += ["", f"{'milliseconds, records in the log:':<34}" + "".join(f"{int(n):>12,}" for n in found["asked"])]
    for name in next(iter(found["asked"].values())):
        lines.append(f"{name:<34}" + "".join(f"{took[name]:>12.1f}" for took in found["asked"].values()))
    return "\n".join(lines)


def show_steps(run: dict[str, Any]) -> str:
    """The steps of one call, and what growth costs it."""
    lines = [f"{'step':<48}{'us':>8}"]
    lines += [f"{name:<48}{taken:>8.0f}" for name, taken in run["steps"].items()]
    lines += ["", f"{'CPU of a call, all threads, without forwarding':<48}{'few':>8}{'many':>8}{'ratio':>8}"]
    for grown in run["growth"]:
        few, many = grown["few"], grown["many"]
        lines.append(f"{grown['what']:<48}{few:>8.0f}{many:>8.0f}{many / few:>8.2f}")
    return "\n".join(lines)


def show_start(run: dict[str, Any]) -> str:
    """How long a desktop client waits for its first list of tools."""
    took = run["start"]
    listed, known, slowest = (_mid(took[name]) for name in ("listed", "known", "slowest"))
    return "\n".join(
        [
            f"first list of tools, {took['servers']} servers, no gateway running    {listed:5.2f} s",
            f"the slowest of the servers alone                        {slowest:5.2f} s",
            f"the difference; 2 s are the target                      {listed - slowest:5.2f} s",
            f"first list of tools from a gateway that runs            {known:5.2f} s",
        ]
    )


def _ratios(rows: list[dict[str, Any]]) -> list[str]:
    by = {row["key"]: row for row in rows}
    direct, governed = by["direct"], by["G"]
    added = [
        (governed[when]["p50"] - direct[when]["p50"], governed[when]["p99"] - direct[when]["p99"])
        for when in ("half", "alone")
    ]
    return [
        f"CPU per call, G / F          {_between(governed['cpu'], by['F']['cpu'])}",
        f"CPU per call, P / F          {_between(by['P']['cpu'], by['F']['cpu'])}",
        f"throughput, G / S            {_between(governed['per_second'], by['S']['per_second'])}",
        f"CPU per call, G / S          {_between(governed['cpu'], by['S']['cpu'])}",
        f"added to the direct call, half of saturation: p50 {added[0][0] / 1e3:.2f} ms, p99 {added[0][1] / 1e3:.2f} ms",
        f"added to the direct call, one caller alone:   p50 {added[1][0] / 1e3:.2f} ms, p99 {added[1][1] / 1e3:.2f} ms",
    ]


def _between(ours: list[float], theirs: list[float]) -> str:
    """The ratio of the medians, and the least and most of the rounds, each against its neighbour in time."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{_mid(ours) / _mid(theirs):5.2f}   (rounds {min(each):.2f} to {max(each):.2f})"


def _mid(values: list[float]) -> float:
    return statistics.median(values)


def _said(conditions: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in conditions["versions"].items())
    return [
        f"{conditions['connections']} connections, one worker process each, uvloop and httptools; "
        f"{conditions['rounds']} rounds of {conditions['seconds']:g} s in turns;",
        f"half of saturation is {conditions['half_rate']:.0f} requests/s, or half of its own for who cannot bear it.",
        f"{conditions['cores']} cores shared with load and tool server, load average {conditions['load_average']:.1f}; "
        f"Python {conditions['python']}, SQLite {conditions['sqlite']},",
        f"{versions}.",
    ]
