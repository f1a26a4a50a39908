"""A filter of records as the condition of one query, so that SQLite leaves out most of what nobody asked for.

The log has an index by kind and one by call, and no other. Everything else is looked for in the text of each record,
which takes SQLite a microsecond; to read it as JSON takes ten times that. What comes out is decided by `Filter.has`.
"""

from __future__ import annotations

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import timestamp

# RFC 8785 sorts the members, so that each record begins with its time, which has one spelling.
_AT = "CAST(substr(body, 8, 27) AS TEXT)"
_SOME = 16  # principals that are looked for in the text; where there are more, each record is read
_LAST = "\U0010ffff"  # no id has a character after it


def where(wanted: Filter, *, after: int, before: int) -> tuple[str, tuple[str | int, ...]]:
    """Return the condition and its values; it holds for all that `wanted` has between `after` and `before`."""
    by_call = wanted.call is not None and not wanted.may_be_hold
    number = "+sequence" if by_call else "sequence"  # a term with a sign uses no index, so that the one by call is used
    terms: list[tuple[str, str | int]] = [(f"{number} > ?", after), (f"{number} < ?", before)]
    if wanted.kind is not None:
        terms.append(("kind = ?", wanted.kind))
    if by_call and wanted.call is not None:
        terms += [("call >= ?", wanted.call), ("call < ?", wanted.call + _LAST)]
    if wanted.since is not None:
        terms.append((f"{_AT} >= ?", timestamp(wanted.since)))
    if wanted.until is not None:
        terms.append((f"{_AT} <= ?", timestamp(wanted.until)))
    # LIKE takes no notice of case, and takes `_` and `%` for more than they are: it lets some through, and misses none.
    # It looks for the first character first, and there is nothing in JSON as frequent as a quotation mark.
    marks = (mark.removeprefix('"') for mark in (*wanted.marks, *wanted.words))
    terms += [("CAST(body AS TEXT) LIKE ?", f"%{mark}%") for mark in marks]
    condition, values = " AND ".join(term for term, _ in terms), [value for _, value in terms]
    if wanted.about is not None and len(wanted.one_of) <= _SOME:
        condition += f" AND ({' OR '.join('CAST(body AS TEXT) LIKE ?' for _ in wanted.one_of) or 'FALSE'})"
        names = (name.removeprefix('"') for name in wanted.one_of)
        values += [f"%{name}%" for name in names]
    return condition, tuple(values)
