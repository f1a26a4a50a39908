"""`mcp-authz policy test`: run tables of cases, and show what is answered otherwise."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mcp_authz.cli.invocation import asynchronous, config_of
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import note, print_json, say
from mcp_authz.cli.policy_entries import config_if_any, engine_of, no_config, typed_entries
from mcp_authz.config import Config
from mcp_authz.errors import ConfigError, NotFound
from mcp_authz.policy.case_file import read_table
from mcp_authz.policy.cases import SUFFIX, Expected, Judged, Table, judge
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.loading import path_of
from mcp_authz.rules.display import visible

_LANGUAGES: Final = (".cedar", ".rego")
_WORDS: Final = {"verdict": "answer", "because": "decided by", "rules": "approval", "error": "error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """One table, against one policy."""

    file: str
    policy: tuple[str, ...]
    judged: tuple[Judged, ...]

    @property
    def failures(self) -> tuple[Judged, ...]:
        return tuple(judged for judged in self.judged if not judged.as_expected)


@asynchronous
async def test(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Tables, policies that have one beside them, or folders. Else the configured ones.",
        ),
    ] = None,
    *,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY", help="The policy to ask, as the configuration names one. Else the one beside the table."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run tables of cases (`*.cases.toml`) against policies. Exit code 1: an answer is not the expected one."""
    config = config_of(ctx) if not files else config_if_any(ctx) if policy else no_config()
    paths = [table for path in files or _configured(config) for table in _tables(path)]
    ran = [run for path in dict.fromkeys(paths) for run in await _run(config, path, policy)]
    if json:
        print_json(_view(ran))
    else:
        _show(ran)
    if any(run.failures for run in ran):
        raise typer.Exit(1)


async def _run(config: Config, path: Path, policy: Sequence[str] | None) -> list[_Ran]:
    """The table with each of its policies: those that were named, together; else each that stands beside it."""
    table = read_table(str(path), _read(path))
    chosen = [typed_entries(config, policy)] if policy else [typed_entries(config, [str(p)]) for p in _beside(path)]
    ran: list[_Ran] = []
    for entries in chosen:
        try:
            engine = engine_of(config, entries)
        except ConfigError as error:
            if not ran:
                raise
            note(f"{', '.join(entries)} is not run: {error}")  # a twin in a language that is not installed
            continue
        ran.append(await _one(table, entries, engine))
    return ran


async def _one(table: Table, entries: tuple[str, ...], engine: PolicyEngine) -> _Ran:
    judged = await judge(table, engine, names_rules=isinstance(engine, CedarEngine))
    if (close := getattr(engine, "aclose", None)) is not None:
        await close()
    return _Ran(file=table.name, policy=entries, judged=judged)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise NotFound(f"{path}: is not text in UTF-8") from None


def _configured(config: Config) -> Iterator[Path]:
    """The configured policy files that have a table beside them."""
    found = False
    for entry in config.policy:
        if "://" not in entry and _table_of(path := path_of(config, entry)).exists():
            found = True
            yield path
    if not found:
        raise NotFound(f"none of the configured policies has a table beside it; write NAME{SUFFIX}, or name a file")


def _tables(path: Path) -> list[Path]:
    """The tables that a path stands for.

    Raises:
        NotFound: it stands for none.
    """
    if path.is_dir():
        found = sorted(path.rglob(f"*{SUFFIX}"))
        if not found:
            raise NotFound(f"there is no `*{SUFFIX}` in `{path}`")
        return found
    table = path if path.name.endswith(SUFFIX) else _table_of(path)
    if not table.exists():
        raise NotFound(f"there is no file `{table}`")
    return [table]


def _table_of(policy: Path) -> Path:
    return policy.with_name(f"{policy.name.removesuffix(policy.suffix)}{SUFFIX}")


def _beside(table: Path) -> list[Path]:
    """The policies that a table is about.

    Raises:
        NotFound: there is none of its name.
    """
    stem = table.name.removesuffix(SUFFIX)
    found = [path for language in _LANGUAGES if (path := table.with_name(f"{stem}{language}")).exists()]
    if not found:
        raise NotFound(f"there is no {stem}.cedar or {stem}.rego beside `{table}`; name a policy with --policy")
    return found


def _show(ran: Sequence[_Ran]) -> None:
    for run in ran:
        failed = len(run.failures)
        policy = ", ".join(Path(entry).name for entry in run.policy)
        say(f"{visible(run.file)} with {visible(policy)}: {_outcome(failed, len(run.judged))}")
        for judged in run.failures:
            say()
            for line in _diff(judged):
                say(visible(line))
        if failed:
            say()
        if not all(judged.compares_rules for judged in run.judged):
            say("    this policy names no rules, so `because` was not compared")
    cases, failed = sum(len(run.judged) for run in ran), sum(len(run.failures) for run in ran)
    say(f"{_counted(cases, 'case')}: " + (f"{failed} not as expected" if failed else "all as expected"))


def _outcome(failed: int, cases: int) -> str:
    if not failed:
        return f"ok, {_counted(cases, 'case')}"
    return f"{failed} of {_counted(cases, 'case')} {'fails' if failed == 1 else 'fail'}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _diff(judged: Judged) -> Iterator[str]:
    """What was expected and what came, and what makes the input of this case another than the table's."""
    case, expected = judged.case, judged.case.expected
    yield f"  line {case.line}: {case.name}"
    for name in judged.differences:
        wanted, came = _written(expected, name), _written(judged.got, name)
        word = f"{_WORDS.get(name, name)}:"
        yield f"    {word:<14}expected  {wanted}"
        yield f"    {'':<14}got       {came}"
    if "because" not in judged.differences and judged.got.because:
        yield f"    {'decided by:':<14}{', '.join(judged.got.because)}"
    for error in judged.errors:
        yield f"    {'error:':<14}{error}"
    changed = [f"{path} = {json_.dumps(value, ensure_ascii=False)}" for path, value in _leaves(case.change)]
    for number, line in enumerate([*changed, *(f"{path} taken out" for path in case.without)]):
        yield f"    {'' if number else 'the input:':<14}{line}"


def _written(answer: Expected, name: str) -> str:
    value = getattr(answer, name)
    if isinstance(value, bool):
        return "an error" if value else "no error"
    return value if isinstance(value, str) else ", ".join(value) or "none"


def _leaves(change: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in change.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _view(ran: Sequence[_Ran]) -> dict[str, Any]:
    return {
        "cases": sum(len(run.judged) for run in ran),
        "failed": sum(len(run.failures) for run in ran),
        "tables": [
            {
                "file": run.file,
                "policy": list(run.policy),
                "cases": len(run.judged),
                "failures": [_failure(judged) for judged in run.failures],
            }
            for run in ran
        ],
    }


def _failure(judged: Judged) -> dict[str, Any]:
    return {
        "name": judged.case.name,
        "line": judged.case.line,
        "differences": list(judged.differences),
        "expected": _answer(judged.case.expected),
        "got": _answer(judged.got),
        "errors": list(judged.errors),
        "change": dict(judged.case.change),
        "without": list(judged.case.without),
    }


def _answer(answer: Expected) -> dict[str, Any]:
    return {
        "verdict": answer.verdict,
        "rules": list(answer.rules),
        "obligations": list(answer.obligations),
        "because": list(answer.because),
        "error": answer.error,
    }
