"""Rego, in a process of its own beside the gateway: policies of OPA's language without an OPA.

A policy answers what OPA's Data API would answer: `allow`, a boolean, or `decision`, an object with `allow`, `because`
and `obligations` (`answer_object`). What the policy may contain is in `rego_plan`, how it is asked in `rego_process`.

An approval is an obligation: the policy says `allow` and asks for `{"kind": "approval", "argument": "RULE"}`, whether
or not `input.approval` is there; the gateway holds the call until the rule is met.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.errors import PolicyError
from mcp_authz.policy import rego_plan
from mcp_authz.policy.answer_object import SILENCE, policy_answer
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.policy.rego_canaries import require_known_answers
from mcp_authz.policy.rego_input import rego_input
from mcp_authz.policy.rego_process import LibraryRefusal, RegoProcess, compiler, library_version

RULES: Final = ("decision", "allow")
"""The rules that may be the answer, the one that is asked first."""

_QUERY: Final = re.compile(r"data(\.[A-Za-z_][A-Za-z0-9_]*)+", re.ASCII)
_PLACE: Final = re.compile(r"\(error \d+:(?P<file>[^|\s]+)\|(?P<at>\d+)\|\d+\s*\(errormsg \d+:(?P<said>[^\n]*?)\)\s*\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegoEngine:
    """A compiled policy set, and the process that evaluates it."""

    digest: str
    query: str
    process: RegoProcess
    turns: ThreadPoolExecutor  # one thread, which waits for the process; the event loop never does

    @classmethod
    def load(cls, sources: Mapping[str, str], *, query: str | None = None) -> RegoEngine:
        """Return the engine for these files, file name to text, once they are known to be sound.

        Args:
            sources: Rego modules, with or without `if` (version 1 or 0).
            query: the rule that is the answer, `data.PACKAGE.RULE`; None: the only `decision`, else the only `allow`.

        Raises:
            ConfigError: the library is not there, cannot be on this machine, or is another than was tested.
            PolicyError: a file cannot be compiled, calls what it may not, or nothing in it is the answer. The message
                names file and line where they are known.
        """
        version = library_version()
        require_known_answers(version)
        query, plan = _compiled(sources, query)
        engine = cls(
            digest=_digest(version, query, sources),
            query=query,
            process=RegoProcess(plan),
            turns=ThreadPoolExecutor(max_workers=1, thread_name_prefix="rego"),
        )
        engine.process.ask({})  # started now and not by the first call; what it says of no input matters to nobody
        return engine

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        """Return the answer; whatever goes wrong is an answer with `permit=False` and `errors`, never a raise."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.turns, self._evaluated, document)
        except PolicyError as error:
            return PolicyAnswer(permit=False, because=(), errors=(str(error),))

    def _evaluated(self, document: PolicyInput) -> PolicyAnswer:
        if not isinstance(document, Mapping):
            raise PolicyError("the input is not a document")
        text = self.process.ask(rego_input(document))
        if text is None:
            raise PolicyError(
                "the policy came to no answer: a rule has two values, or a value is not what the policy takes it for"
            )
        return SILENCE if text == "undefined" else policy_answer(_value(text))


def _value(text: str) -> Any:
    """Return the value of the query, of which there is exactly one."""
    try:
        answered = json.loads(text)
        return answered["bindings"]["x"]
    except (ValueError, LookupError, TypeError):
        raise PolicyError("the policy came to more than one answer, or to none that can be read") from None


def _compiled(sources: Mapping[str, str], query: str | None) -> tuple[str, str]:
    """Return the query, and the plan that answers it."""
    if query is not None and not _QUERY.fullmatch(query):
        raise PolicyError(f"`{query}` names no rule; write `data.PACKAGE.RULE`")
    names = {f"m{number}.rego": name for number, name in enumerate(sorted(sources))}
    modules = {module: sources[name] for module, name in names.items()}
    modules[rego_plan.GUARD_FILE] = rego_plan.GUARD_TEXT
    try:
        with compiler() as compile_:
            first = compile_(modules, f"x = {query or 'data'}")
            asked = _asked(first, query)
            return asked, rego_plan.checked(first if query else compile_(modules, f"x = {asked}"), names)
    except LibraryRefusal as error:
        raise PolicyError(_said(str(error), names, modules)) from None


def _asked(plan: str, query: str | None) -> str:
    """Return the rule that is the answer, once it is known that there is one."""
    there = {f"data.{package}.{rule}" for package, rules in rego_plan.rules(plan).items() for rule in rules}
    if query is not None:
        if query not in there:
            raise PolicyError(f"no policy has the rule `{query}`; there is {', '.join(sorted(there)) or 'none'}")
        return query
    for name in RULES:
        found = sorted(rule for rule in there if rule.endswith(f".{name}"))
        if len(found) > 1:
            raise PolicyError(f"several rules could be the answer: {', '.join(found)}; say which by `policy_query`")
        if found:
            return found[0]
    raise PolicyError("no policy has a rule `allow` or `decision`; without one nothing is ever permitted")


def _said(error: str, names: Mapping[str, str], modules: Mapping[str, str]) -> str:
    """Return the library's errors with the file and line of each."""
    found = []
    for match in _PLACE.finditer(error + "\n"):
        text = modules.get(match["file"], "")
        line = text.encode()[: int(match["at"])].count(b"\n") + 1
        found.append(f"{names.get(match['file'], match['file'])}:{line}: {match['said']}")
    return "; ".join(dict.fromkeys(found)) or f"{', '.join(names.values())}: cannot be compiled: {error[:80]}"


def _digest(version: str, query: str, sources: Mapping[str, str]) -> str:
    """Hex SHA-256 over engine, query and files; each text goes in with its length, so that none can pass for two."""
    state = hashlib.sha256(f"regopy {version}\n".encode())
    for part in (query, *(part for pair in sorted(sources.items()) for part in pair)):
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "big") + encoded)
    return state.hexdigest()
