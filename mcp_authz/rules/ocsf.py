"""A record of the log as an event of the Open Cybersecurity Schema Framework, version 1.8.0.

| records | class |
|---|---|
| decision, outcome, approval | API Activity (6003) |
| sign-in, refusals | Authentication (3002) |
| grant, session, delegation | Authorize Session (3003) |
| the others | Entity Management (3004) |

What the schema has no attribute for stands in `unmapped`, which has every field of the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from mcp_authz.rules.log import timestamp
from mcp_authz.rules.peer import is_address
from mcp_authz.rules.sentence import Written, sentence

VERSION: Final = "1.8.0"
API, AUTHENTICATION, AUTHORIZE, ENTITY = 6003, 3002, 3003, 3004
OTHER: Final = 99

_CLASSES: Final[Mapping[str, int]] = {
    "decision": API,
    "outcome": API,
    "approval": API,
    "sign-in": AUTHENTICATION,
    "refusals": AUTHENTICATION,
    "grant": AUTHORIZE,
    "session": AUTHORIZE,
    "delegation": AUTHORIZE,
}
_BY_HAZARD: Final = {"read": 2, "write": 3}  # what is destructive may create, change or delete
_BY_KIND: Final = {"enrolment": 6, "revocation": 11, "checkpoint": 1}  # Enroll, Deactivate, Create; else Update
_UPDATE: Final = 3

# status_id, severity_id, action_id, disposition_id
_DECIDED: Final = {
    "permit": (1, 1, 1, 1),
    "replay": (1, 1, 1, 16),
    "hold": (OTHER, 2, OTHER, 14),
    "deny": (2, 3, 2, 2),
}
_ENDED: Final = {"done": 1, "tool-error": 2, "error": 2}
_STATUS: Final = {0: "Unknown", 1: "Success", 2: "Failure"}
_MINUTE: Final = timedelta(minutes=1)


def event(record: Written, *, sequence: int, hash_: bytes, version: str) -> dict[str, Any]:
    """The event as a JSON object; `version` is that of this program."""
    fields, class_uid = record.fields, _CLASSES.get(record.kind, ENTITY)
    activity, status, severity = _activity(record, class_uid), _status(record), _severity(record)
    made: dict[str, Any] = {
        "class_uid": class_uid,
        "category_uid": class_uid // 1000,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        "severity_id": severity,
        "status_id": status,
        "status": _STATUS.get(status) or str(fields.get("decision") or fields.get("outcome") or "Other"),
        "time": round(record.at.timestamp() * 1000),
        "message": sentence(record),
        "metadata": _metadata(record, sequence, hash_, version),
        "actor": _actor(fields),
        "unmapped": {"at": timestamp(record.at), "kind": record.kind, **fields},
    }
    if activity == OTHER:
        made["activity_name"] = record.kind
    if fields.get("reason"):
        made["status_detail"] = str(fields["reason"])
    if record.kind == "decision" and fields.get("decision") in _DECIDED:
        _, _, made["action_id"], made["disposition_id"] = _DECIDED[fields["decision"]]
    if "trace" in fields:
        made["trace"] = {"uid": str(fields["trace"])}
    return made | _OF_CLASS[class_uid](record)


def _metadata(record: Written, sequence: int, hash_: bytes, version: str) -> dict[str, Any]:
    profiles = ["security_control"] * (record.kind == "decision") + ["trace"] * ("trace" in record.fields)
    made: dict[str, Any] = {
        "version": VERSION,
        "product": {"name": "mcp-authz", "vendor_name": "mcp-authz", "version": version},
        "log_name": "audit",
        "sequence": sequence,
        "uid": hash_.hex(),
    }
    if record.call is not None:
        made["correlation_uid"] = record.call
    return made | ({"profiles": profiles} if profiles else {})


def _activity(record: Written, class_uid: int) -> int:
    if class_uid == API:
        return _BY_HAZARD.get(str(record.fields.get("hazard")), OTHER)
    return 1 if class_uid in (AUTHENTICATION, AUTHORIZE) else _BY_KIND.get(record.kind, _UPDATE)


def _status(record: Written) -> int:
    fields = record.fields
    if record.kind == "refusals":
        return 2
    if record.kind == "outcome":
        return _ENDED.get(str(fields.get("outcome")), 0)
    return _DECIDED.get(str(fields.get("decision")), (1,))[0]


def _severity(record: Written) -> int:
    outcome = record.fields.get("outcome")
    if outcome in ("quarantined", "unknown"):
        return 4 if outcome == "quarantined" else 3
    if record.kind == "refusals":
        return 2
    decided = _DECIDED.get(str(record.fields.get("decision")))
    return 1 if decided is None else decided[1]


def _actor(fields: Mapping[str, Any]) -> dict[str, Any]:
    name = next((str(fields[key]) for key in ("actor", "by", "person", "agent") if fields.get(key)), None)
    made: dict[str, Any] = {"app_name": str(fields["client"])} if fields.get("client") else {}
    if name is not None:
        made["user"] = _user(name)
    if isinstance(fields.get("session"), str):
        made["session"] = {"uid": fields["session"]}
    return made or {"app_name": "mcp-authz"}


def _user(name: str) -> dict[str, Any]:
    kind, _, bare = name.rpartition(":")
    return {"name": bare, "uid": name, "type_id": {"user": 1, "agent": 4}.get(kind, 0)}


def _api(record: Written) -> dict[str, Any]:
    fields = record.fields
    operation = next((str(fields[key]) for key in ("action", "tool", "method") if fields.get(key)), record.kind)
    api: dict[str, Any] = {"operation": operation}
    if record.call is not None:
        api["request"] = {"uid": record.call}
    if fields.get("server"):
        api["service"] = {"name": str(fields["server"])}
    made: dict[str, Any] = {
        "api": api,
        "src_endpoint": _source(fields, str(fields.get("client") or fields.get("actor") or "unknown")),
    }
    if fields.get("tool"):
        made["resources"] = [{"name": str(fields["tool"]), "type": "MCP tool"}]
    return made


def _source(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Who sent it: through which client, and from which address where the record says it."""
    peer = fields.get("peer")
    return {"name": name, "ip": peer} if isinstance(peer, str) and is_address(peer) else {"name": name}


def _authentication(record: Written) -> dict[str, Any]:
    fields = record.fields
    name = next((str(fields[key]) for key in ("person", "agent", "actor", "by") if fields.get(key)), "unknown")
    made: dict[str, Any] = {"user": _user(name), "service": {"name": "mcp-authz"}}
    if record.kind == "refusals":
        ended = round(record.at.timestamp() * 1000)
        began = round((record.at - _MINUTE).timestamp() * 1000)
        made |= {"count": fields.get("count", 1), "start_time": began, "end_time": ended}
        made["src_endpoint"] = {"name": str(fields.get("source", "unknown"))}
    elif "peer" in fields:
        made["src_endpoint"] = _source(fields, str(fields["peer"]))
    return made


def _authorize(record: Written) -> dict[str, Any]:
    fields = record.fields
    name = next((str(fields[key]) for key in ("holder", "agent", "actor", "by") if fields.get(key)), "unknown")
    scope = fields.get("scope")
    words = scope.split() if isinstance(scope, str) else list(map(str, scope or ()))
    return {"user": _user(name), "privileges": words or [record.kind]}


def _entity(record: Written) -> dict[str, Any]:
    fields = record.fields
    named = ("person", "agent", "name", "tool", "link", "grant", "session", "server", "key", "policy")
    name = next((str(fields[key]) for key in named if fields.get(key)), record.kind)
    return {"entity": {"name": name, "type": record.kind}}


_OF_CLASS: Final = {API: _api, AUTHENTICATION: _authentication, AUTHORIZE: _authorize, ENTITY: _entity}
