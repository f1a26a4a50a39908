"""What a delegator asks for, as the form of a token exchange says it: to whom, how much, how long, and why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from mcp_authz.agents import agent_name
from mcp_authz.delegating import Asked
from mcp_authz.errors import ConstraintError, InputError, ScopeError
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.principals import AgentName
from mcp_authz.rules import strict_json
from mcp_authz.rules.constraint import ToolsMap, parse_tools, to_json
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.scope import PERSONAL, PERSONAL_REFUSED, Scope, common, parse_scopes
from mcp_authz.rules.token import MINIMAL_SCOPE

DETAILS_TYPE: Final = "attenuating_agent_token"
BOUNDS: Final = ("authorization_details", "expires_in", "max_calls", "max_depth", "reason")
"""The parameters that say how much a delegation gives, beside `scope`."""

_DIGITS: Final = 9


def asked_delegation(form: Form, *, scope: frozenset[Scope]) -> Asked:
    """Return what the form asks for, out of `scope`.

    Raises:
        Refusal: a parameter is not what it should be, or the scope asked for is more.
    """
    lifetime, given = _number(form, "expires_in"), asked_out_of(form.get("scope"), scope)
    return Asked(
        to=requested_actor(form),
        scope=given if "scope" in form else None,
        tools=_tools(form),
        max_calls=_number(form, "max_calls"),
        max_depth=_number(form, "max_depth"),
        reason=form.get("reason", ""),
        **({} if lifetime is None else {"lifetime": timedelta(seconds=lifetime)}),
    )


def requested_actor(form: Form) -> AgentName:
    """Return the delegate that `requested_actor` names; a child is named by a signed link of its parent's alone.

    Raises:
        Refusal: it names none.
    """
    try:
        return agent_name(form.get("requested_actor", "").removeprefix("agent:"))
    except InputError:
        raise Refusal("invalid_request", "name the delegate in requested_actor, as in agent:coder") from None


def asked_scope(text: str | None) -> frozenset[Scope] | None:
    """Return the scopes of a request's `scope` parameter, None when there is none.

    Raises:
        Refusal: one of them is not a scope.
    """
    try:
        return None if text is None else parse_scopes(text)
    except ScopeError as error:
        raise Refusal("invalid_scope", "the requested scope is malformed", reason=str(error)) from None


def delegated_scope(text: str | None) -> frozenset[Scope] | None:
    """Return what `asked_scope` returns, for one agent to have from another or from an identity provider.

    Raises:
        Refusal: as `asked_scope`; or something personal is asked for, which only a person gives.
    """
    asked = asked_scope(text)
    if asked is not None and not asked.isdisjoint(PERSONAL):
        raise Refusal("invalid_scope", PERSONAL_REFUSED.replace("`", ""), reason="asked for what only a person gives")
    return asked


def asked_out_of(text: str | None, held: frozenset[Scope]) -> frozenset[Scope]:
    """Return the scopes that are asked for, all of `held` when nothing is; the minimal scope is nothing to give on.

    Raises:
        Refusal: something is not covered by `held`, or nothing is left (RFC 6749 section 5.2).
    """
    asked = asked_scope(text)
    given = (held if asked is None else asked) - {MINIMAL_SCOPE}
    if extra := uncovered(tuple(sorted(given)), held):
        text = "the requested scope is more than the token carries"
        raise Refusal("invalid_scope", text, reason=f"asked for {' '.join(extra)[:256]}")
    if not given:
        raise Refusal("invalid_scope", "the token carries no scope to give on; sign in without naming one")
    return given


def carried(link: frozenset[Scope], token: frozenset[Scope]) -> frozenset[Scope]:
    """Return what a link gives as far as the token that stands for it carries it."""
    return common(link, token - {MINIMAL_SCOPE})


def details(tools: ToolsMap | None) -> dict[str, Any]:
    """Return the member of a token response that repeats the constraints that were granted (RFC 9396 section 7)."""
    return {} if tools is None else {"authorization_details": [{"type": DETAILS_TYPE, "tools": to_json(tools)}]}


def refuse_bounds(form: Form) -> None:
    """Return only if the form narrows nothing that this exchange cannot narrow: nobody may believe it did.

    Raises:
        Refusal: it does.
    """
    if named := [name for name in BOUNDS if name in form]:
        raise Refusal("invalid_request", f"this exchange gives what the link gives; leave out {' '.join(named)}")


def _tools(form: Form) -> ToolsMap | None:
    """The tools map of the one `authorization_details` entry that a delegation can have (RFC 9396)."""
    if "authorization_details" not in form:
        return None
    try:
        asked: Any = strict_json.parse_value(form["authorization_details"].encode())
        if not isinstance(asked, list) or len(asked) != 1 or not isinstance(asked[0], dict):
            raise InputError("not a list of one object")
        if asked[0].keys() != {"type", "tools"} or asked[0]["type"] != DETAILS_TYPE:
            raise InputError("another type, or other members")
        return parse_tools(asked[0]["tools"])
    except (InputError, ConstraintError) as error:
        text = f"authorization_details is a list of one object of type {DETAILS_TYPE} with a tools map"
        raise Refusal("invalid_authorization_details", text, reason=str(error)) from None


def _number(form: Form, name: str) -> int | None:
    text = form.get(name)
    if text is None:
        return None
    if len(text) > _DIGITS or not (text.isascii() and text.isdigit()):
        raise Refusal("invalid_request", f"{name} is a number")
    return int(text)
