"""`mcp-authz policy lint`: what is wrong with a policy, or cannot do what it seems to, with file and line."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from mcp_authz.cli.invocation import asynchronous, command_line
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.policy_around import around
from mcp_authz.cli.policy_entries import config_if_any, engine_of, typed_entries
from mcp_authz.config import Config
from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.cedar_source import policies_in
from mcp_authz.policy.lint import ORDER, Finding, look_at
from mcp_authz.policy.lint_approval import look_at_approval
from mcp_authz.policy.lint_static import Around
from mcp_authz.policy.loading import read_files
from mcp_authz.rules.display import visible
from mcp_authz.settings import approval_floor

_WIDTH: Final = 80
_PER_ACTION: Final = re.compile(r"(?: in context)? for Action::\"[^\"]*\"$")  # the validator looks at each action


@asynchronous
async def lint(
    ctx: typer.Context,
    entries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ENTRY...]", help="Policies, as the configuration names them. Else the configured ones."
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Look for mistakes in policies: what does not load, never applies, or permits nothing. Exit code 1: an error."""
    config = config_if_any(ctx)
    chosen = typed_entries(config, entries) if entries else config.policy
    known = await around(config)
    found = sorted(_findings(config, chosen, known), key=lambda finding: ORDER.index(finding.severity))
    if json:
        print_json([{"severity": f.severity, "place": f.place, "text": f.text} for f in found])
    else:
        _show(ctx, found, chosen)
    if any(finding.severity == "error" for finding in found):
        raise typer.Exit(1)


def _findings(config: Config, entries: Sequence[str], known: Around) -> Iterator[Finding]:
    """All that is found; of a set that does not load, why not, and nothing else."""
    try:
        engine = engine_of(config, entries)
    except (ConfigError, PolicyError) as error:
        yield from dict.fromkeys(_placed(_plain(one), entries) for one in _each(str(error), entries))
        return
    if isinstance(engine, CedarEngine):
        yield from look_at(policies_in(read_files(config, entries)), known)
    else:
        where = (
            "decides elsewhere, and nothing is known of it here" if "://" in entries[0] else "loads; Rego says no more"
        )
        yield Finding(severity="note", place="", text=f"{', '.join(entries)} {where}")
    yield from look_at_approval(approval_floor(config), known)


def _plain(message: str) -> str:
    """The message once for all actions, and with what to do about an attribute that may be absent."""
    plain = _PER_ACTION.sub("", message)
    if found := re.search(r"optional attribute `(?:.*\.)?(\w+)`", plain):
        return f"{plain}; it may be absent: write `... has {found[1]} &&` before it"
    return plain


def _placed(message: str, names: Sequence[str]) -> Finding:
    """The message as a finding, its place apart where it begins with one."""
    for name in names:
        if found := re.match(rf"({re.escape(name)}(?::\d+)?): (.*)", message, re.S):
            return Finding(severity="error", place=found[1], text=found[2])
    return Finding(severity="error", place="", text=message)


def _each(message: str, names: Sequence[str]) -> list[str]:
    """One message for each mistake: what the validator says of a file is joined by semicolons."""
    parts: list[str] = []
    for part in message.split("; "):
        if parts and not part.startswith(tuple(names)):
            parts[-1] += f"; {part}"
        else:
            parts.append(part)
    return parts


def _show(ctx: typer.Context, found: Sequence[Finding], entries: Sequence[str]) -> None:
    for finding in found:
        place = f"{finding.place}: " if finding.place else ""
        text = visible(f"{place}{finding.severity}: {finding.text}")
        for line in textwrap.wrap(
            text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        ):
            say(line)
    counts: Mapping[Any, int] = Counter(finding.severity for finding in found)
    told = [f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in ORDER if counts.get(kind)]
    say(f"{visible(', '.join(entries)) or 'no policy'}: {', '.join(told) or 'nothing found'}")
    if not counts.get("error"):
        next_step(command_line(ctx, "policy", "test"))
