"""Reading a file of cases: every member is known, or the file is refused with its line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp_authz.errors import InputError
from mcp_authz.policy.cases import Case, Expected, Table

_STEP: Final[Mapping[str, Any]] = {"type": None, "id": None, "labels": {}, "scope": None}
_AUTH: Final[Mapping[str, Any]] = {"amr": None, "at": None}

MEMBERS: Final[Mapping[str, Any]] = {
    "actor": {"type": None, "id": None, "key": None, "labels": {}, "roles": None, "proof": None},
    "chain": _STEP,  # of each of its objects
    "on_behalf_of": {"user_id": None, "issuer": None, "groups": None, "auth": _AUTH},
    "session": dict.fromkeys(("id", "purpose", "mode", "started_at", "expires_at", "calls_made")),
    "action": None,
    "method": None,
    "resource": {},
    "arguments": {},
    "scope": None,
    "approval": dict.fromkeys(("rule", "rules", "assurance", "approved_at")),
    "time": None,
}
"""The members of the input document: None is a value, `{}` an object whose members the operator names."""

_TOP: Final = ("input", "case")
_CASE: Final = ("name", "change", "without", "expect", "rules", "obligations", "because", "error")
_VERDICTS: Final = ("permit", "hold", "deny")


class CaseFileError(InputError):
    """A file of cases that cannot be used; the message names the file and the line."""


def read_table(name: str, text: str) -> Table:
    """Return the table in this text, every member of it known.

    Raises:
        CaseFileError: it is no TOML, or names something that neither cases nor the input document have.
    """
    try:
        table = _Reader(name, text).table()
        for case in table.cases:
            json.dumps(case.document(table.base), default=str)  # whoever is asked about it looks into it as deeply
    except RecursionError:
        raise CaseFileError(f"{name}: is nested too deeply") from None
    return table


class _Reader:
    """One file, which knows where its words stand."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.splitlines()
        self.starts = [n for n, line in enumerate(self.lines, 1) if re.match(r"\s*\[\[\s*case\s*\]\]", line)]
        try:
            self.values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CaseFileError(f"{name}: not valid TOML: {error}") from None

    def table(self) -> Table:
        self._require_known(self.values, _TOP, "a file of cases", 1)
        base, cases = self.values.get("input"), self.values.get("case")
        if not isinstance(base, dict):
            raise CaseFileError(f"{self.name}: has no `[input]`, the document that the cases start from")
        if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
            raise CaseFileError(f"{self.name}: has no `[[case]]`")
        self._require_members(base, MEMBERS, "input", 1)
        read = tuple(self._case(case, self.starts[n] if n < len(self.starts) else 1) for n, case in enumerate(cases))
        for before, case in enumerate(read):
            if case.name in {earlier.name for earlier in read[:before]}:
                raise self._refusal(case.line, f"another case is called `{case.name}` already")
        return Table(name=self.name, base=base, cases=read)

    def _case(self, case: Mapping[str, Any], line: int) -> Case:
        self._require_known(case, _CASE, "a case", line)
        name, expect = case.get("name"), case.get("expect")
        if not isinstance(name, str) or not name.strip():
            raise self._refusal(line, "a case has no `name`; say in a sentence what is true")
        if expect not in _VERDICTS:
            raise self._refusal(self._line("expect", line), f"`expect` is one of {', '.join(_VERDICTS)}")
        if not isinstance(case.get("error", False), bool):
            raise self._refusal(self._line("error", line), "`error` is true or false")
        change = case.get("change", {})
        if not isinstance(change, dict):
            raise self._refusal(self._line("change", line), "`change` is a table: `change.action = ...`")
        self._require_members(change, MEMBERS, "change", line)
        without = self._words(case, "without", line)
        for path in without:
            self._require_path(path, line)
        expected = Expected(
            verdict=expect,
            rules=self._words(case, "rules", line),
            obligations=self._words(case, "obligations", line),
            because=self._words(case, "because", line),
            error=case.get("error", False),
        )
        return Case(name=name, line=line, expected=expected, change=change, without=without)

    def _words(self, case: Mapping[str, Any], member: str, line: int) -> tuple[str, ...]:
        words = case.get(member, [])
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise self._refusal(self._line(member, line), f"`{member}` is a list of words")
        return tuple(words)

    def _require_known(self, values: Mapping[str, Any], known: Iterable[str], what: str, line: int) -> None:
        for member in values:
            if member not in known:
                there = ", ".join(f"`{name}`" for name in known)
                place = self._line(f"{what.strip('`')}.{member}" if what.startswith("`") else member, line)
                raise self._refusal(place, f"{what} has no member `{member}`; there is {there}")

    def _require_members(self, values: Mapping[str, Any], known: Mapping[str, Any], path: str, line: int) -> None:
        """Every member is one of the input document; what has no members of its own is not looked into."""
        self._require_known(values, tuple(known), f"`{path}`", line)
        for member, value in values.items():
            inner = known[member]
            for record in value if isinstance(value, list) else [value]:
                if inner and isinstance(record, dict):
                    self._require_members(record, inner, f"{path}.{member}", line)
                elif (inner is not None or isinstance(record, dict)) and not (inner == {} and isinstance(record, dict)):
                    raise self._refusal(self._line(f"{path}.{member}", line), f"`{path}.{member}` is {_kind(inner)}")

    def _require_path(self, path: str, line: int) -> None:
        known: Any = MEMBERS
        for step in path.split("."):
            if known == {}:  # the operator's names
                return
            if known is None or step not in known:
                raise self._refusal(self._line(path, line), f"`without` names `{path}`, which the input cannot have")
            known = known[step]

    def _line(self, path: str, start: int) -> int:
        """Where the last step of the path stands, each step on the line of the one before it or below."""
        for step in path.split("."):
            whole = re.compile(rf"(?<![\w-]){re.escape(step)}(?![\w-])")
            start = next((n for n in range(start, len(self.lines) + 1) if whole.search(self.lines[n - 1])), start)
        return start

    def _refusal(self, line: int, problem: str) -> CaseFileError:
        return CaseFileError(f"{self.name}:{line}: {problem}")


def _kind(inner: object) -> str:
    return "no object" if inner is None else "an object"
