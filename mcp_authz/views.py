"""Things as JSON: the keys are documented in docs/commands.md and stay what they are, times are RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from mcp_authz.approvals import Context
from mcp_authz.authorization import Identity, RegisteredClient
from mcp_authz.model import HeldCall, Tool
from mcp_authz.passkey import Passkey
from mcp_authz.principals import Agent, Grant, Key, Link, Person, Session
from mcp_authz.rules.constraint import ToolsMap, to_json
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.verdict import word
from mcp_authz.running import RunningCall
from mcp_authz.signing_key import SigningKey
from mcp_authz.store.ports import Record
from mcp_authz.store.switch_port import Swept


def agent(it: Agent) -> dict[str, Any]:
    return {
        "name": it.name,
        "owner": it.owner,
        "status": it.status,
        "ceiling": sorted(it.ceiling),
        "roles": sorted(it.roles),
        "labels": dict(it.labels),
        "depth": it.depth,
        "delegates_to": sorted(it.delegates_to),
        "interactive": it.interactive,
        "metadata_url": it.metadata_url,
        "parent": it.parent,
        "client": it.client,
        "ends_at": None if it.ends_at is None else timestamp(it.ends_at),
    }


def client(it: RegisteredClient) -> dict[str, Any]:
    return {
        "id": it.id,
        "handle": it.handle,
        "name": it.name,
        "kind": it.kind,
        "redirect_uris": list(it.redirect_uris),
        "method": it.method,
        "registered_at": timestamp(it.registered_at),
        "read_at": _time(it.read_at),
        "status": it.status,
    }


def person(it: Person) -> dict[str, Any]:
    return {"name": it.name, "groups": sorted(it.groups), "status": it.status}


def known(
    it: Person, by: Iterable[Key], also_by: Iterable[Passkey], elsewhere: Iterable[Identity], browsers: int
) -> dict[str, Any]:
    shown = {"keys": keys(by), "passkeys": passkeys(also_by), "identities": identities(elsewhere)}
    return {**person(it), **shown, "browsers": browsers}


def keys(of: Iterable[Key]) -> list[dict[str, Any]]:
    return [
        {
            "thumbprint": it.thumbprint,
            "status": it.status,
            "added_at": timestamp(it.added_at),
            "retires_at": _time(it.retires_at),
        }
        for it in of
    ]


def identities(of: Iterable[Identity]) -> list[dict[str, Any]]:
    return [{"issuer": it.issuer, "subject": it.subject, "linked_at": timestamp(it.linked_at)} for it in of]


def passkeys(of: Iterable[Passkey]) -> list[dict[str, Any]]:
    return [
        {
            "id": b64url(it.credential),
            "label": it.label,
            "status": it.status,
            "added_at": timestamp(it.added_at),
            "last_used_at": _time(it.last_used_at),
        }
        for it in of
    ]


def grant(it: Grant) -> dict[str, Any]:
    return {
        "id": it.id,
        "subject": it.subject,
        "agent": it.agent,
        "scope": sorted(it.scope),
        "tools": _tools(it.tools),
        "granted_at": timestamp(it.granted_at),
        "expires_at": timestamp(it.expires_at),
        "status": it.status,
    }


def grant_now(it: Grant, at: datetime) -> dict[str, Any]:
    return {**grant(it), "state": grant_state(it, at)}


def grant_state(it: Grant, at: datetime) -> str:
    """`active`, `revoked` or `expired`."""
    return "expired" if it.status == "active" and at >= it.expires_at else it.status


def session(it: Session) -> dict[str, Any]:
    return {
        "id": it.id,
        "grant": it.grant,
        "subject": it.subject,
        "agent": it.agent,
        "mode": it.mode.value,
        "purpose": it.purpose,
        "started_at": timestamp(it.started_at),
        "expires_at": timestamp(it.expires_at),
        "last_used_at": timestamp(it.last_used_at),
        "max_calls": it.max_calls,
        "calls_made": it.calls_made,
        "status": it.status,
    }


def link(it: Link) -> dict[str, Any]:
    return {
        "id": it.id,
        "parent": it.parent,
        "holder": it.holder,
        "scope": sorted(it.scope),
        "tools": _tools(it.tools),
        "depth": it.depth,
        "max_depth": it.max_depth,
        "issued_at": timestamp(it.issued_at),
        "expires_at": timestamp(it.expires_at),
        "max_calls": it.max_calls,
        "calls_made": it.calls_made,
        "reason": it.reason,
        "status": it.status,
    }


def held(it: HeldCall) -> dict[str, Any]:
    return {
        "id": it.id,
        "state": it.state.value,
        "actor": it.actor,
        "subject": it.subject,
        "mode": it.mode.value,
        "owner": it.owner,
        "chain": list(it.chain),
        "session": it.session,
        "purpose": it.purpose,
        "tool": it.tool,
        "hazard": it.hazard.value,
        "arguments": dict(it.arguments),
        "rules": [
            {
                "name": rule.name,
                "by": list(rule.by),
                "quorum": rule.quorum,
                "outside_chain": rule.outside_chain,
                "assurance": rule.assurance.label,
                "reason": rule.reason,
            }
            for rule in it.rules
        ],
        "verdicts": [
            {
                "person": verdict.person,
                "verdict": word(verdict),
                "assurance": verdict.assurance.label,
                "reason": verdict.reason,
                "signed_by": verdict.signed_by,
                "given_at": timestamp(verdict.given_at),
                "terms": dict(verdict.terms),
            }
            for verdict in it.verdicts
        ],
        "asked_at": timestamp(it.asked_at),
        "expires_at": timestamp(it.expires_at),
        "ended_at": _time(it.ended_at),
        "shredded_at": _time(it.shredded_at),
    }


def context(it: Context) -> dict[str, Any]:
    """What helps to judge a held call."""
    ran = it.same_ran
    return {
        "last_approved": None if it.last is None else it.last.id,
        "differences": [{"name": one.name, "before": list(one.before), "now": list(one.now)} for one in it.differences],
        "same_ran_at": None if ran is None else _time(ran.ended_at),
    }


def record(it: Record) -> dict[str, Any]:
    return {
        "sequence": it.sequence,
        "at": timestamp(it.event.at),
        "kind": it.event.kind,
        "call": it.event.call,
        "fields": dict(it.event.fields),
        "previous": it.previous.hex(),
        "hash": it.hash.hex(),
    }


def running(of: Iterable[RunningCall]) -> list[dict[str, Any]]:
    return [{"call": it.call, "tool": it.tool, "actor": it.actor, "since": timestamp(it.since)} for it in of]


def swept(it: Swept) -> dict[str, Any]:
    ids = {kind: list(ended) for kind, ended in it.ids.items()}
    return {"ids": ids, "sign_ins": it.sign_ins, "codes": it.codes, "holds": list(it.holds)}


def tool(it: Tool, warnings: Iterable[str]) -> dict[str, Any]:
    return {
        "name": it.name,
        "server": it.server,
        "tool": it.tool,
        "environment": it.environment,
        "hazard": it.classification.hazard.value,
        "action": it.classification.action,
        "scopes": [str(scope) for scope in it.classification.scopes],
        "classified_by": it.classification.by,
        "approval": it.classification.approval,
        "proof": it.classification.proof.name.lower(),
        "quarantined": it.quarantined,
        "off": it.off,
        "observed": it.observed,
        "digest": it.digest.hex(),
        "warnings": list(warnings),
    }


def signing_key(it: SigningKey, state: str) -> dict[str, Any]:
    return {
        "use": it.use,
        "key": it.kid,
        "state": state,
        "made_at": timestamp(it.made_at),
        "signs_from": timestamp(it.signs_from),
        "retires_at": _time(it.retires_at),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)


def _tools(tools: ToolsMap | None) -> dict[str, Any] | None:
    return None if tools is None else to_json(tools)
