"""What of a verdict bundle can be verified, and is: one finding for each thing, good, wrong, or left open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mcp_authz.errors import AuthzError, InputError, SignatureRefused
from mcp_authz.model import ApprovalRule, Assurance, HeldCall, HoldState
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import digest, digest_b64url
from mcp_authz.rules.display import displayed, visible
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.keys import PublicKey, b64url, unb64url
from mcp_authz.rules.log import record_bytes, record_hash
from mcp_authz.rules.statement_checks import PasskeyCheck, Statement, check_statement
from mcp_authz.rules.verdict_bundle import FORMAT, MEMBERS, TYP, read_assurance, read_hold, read_jwk, read_time

_RAN = frozenset({HoldState.APPROVED, HoldState.CLAIMED, HoldState.DONE, HoldState.FAILED, HoldState.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: it is so, it is not so, or this bundle cannot show it."""

    verdict: Literal["verified", "wrong", "open"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What is believed beforehand: public keys by id, and how a passkey's signature is verified."""

    keys: Mapping[str, PublicKey] | None  # None: the bundle's own word is taken for its keys
    passkey: PasskeyCheck


def verify_bundle(bundle: Mapping[str, Any], trust: Trust) -> tuple[Finding, ...]:
    """Return what was found, in the order of the bundle; it is as it says if nothing is `wrong`.

    Raises:
        InputError: it is no bundle of this format.
    """
    if set(bundle) != set(MEMBERS) or bundle["format"] != FORMAT:
        raise InputError(f"this is no bundle of the format `{FORMAT}`")
    try:
        # What is visible already stays as it is; the rest of a text may be somebody else's choice, too.
        return tuple(replace(one, text=_printable(one.text)) for one in _findings(bundle, trust))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the bundle cannot be read: {type(error).__name__} {error}") from None


def _printable(text: str) -> str:
    """The text without anything that a terminal would act on; what it spells out already is not spelled out again."""
    return "".join(character if character == "\\" else visible(character) for character in text)


def _findings(bundle: Mapping[str, Any], trust: Trust) -> Iterator[Finding]:
    held = read_hold(bundle)
    gateway = read_jwk(bundle["keys"]["gateway"])
    yield _keys(gateway, trust)
    yield _is_so(lambda: _require_signature(bundle, gateway), "the gateway signed this bundle as it is")
    action = digest(bundle["action"])
    yield _action(held, bundle["action"])
    yield _is_so(lambda: _require_display(held, bundle["displayed"]), "the displayed text is that of the call")
    shown = hashlib.sha256(str(bundle["displayed"]).encode()).digest()
    counted: dict[str, set[str]] = {rule.name: set() for rule in held.rules}
    for said in bundle["verdicts"]:
        statement = Statement(
            held=held,
            said=said,
            act_s256=b64url(action),
            shown_s256=b64url(shown),
            keys=_signers(bundle, said, gateway),
            passkeys={unb64url(one): unb64url(key) for one, key in bundle["keys"]["passkeys"].items()},
        )
        try:
            yield from (Finding(verdict="open", text=text) for text in check_statement(statement, trust.passkey))
        except AuthzError as error:
            yield Finding(verdict="wrong", text=f"the verdict of {_who(said)}: {error}")
            continue
        yield Finding(verdict="verified", text=_sentence(said))
        if said["verdict"] == "approve":
            for rule in held.rules:
                if _counts(said, held, rule):
                    counted[rule.name].add(said["person"])
    yield from _rules(held, counted)
    yield _state(held, bundle["verdicts"], counted)
    yield from _records(bundle)


def _keys(gateway: PublicKey, trust: Trust) -> Finding:
    if trust.keys is None:
        text = "the gateway's key is the bundle's own word; compare it with GATEWAY/approval-keys (--keys FILE)"
        return Finding(verdict="open", text=text)
    if trust.keys.get(gateway.thumbprint) != gateway:
        return Finding(verdict="wrong", text="the gateway's key is none of the keys that you trust")
    return Finding(
        verdict="verified", text="the gateway's key is one that you trust; it vouches for those of approvers"
    )


def _is_so(require: Callable[[], None], text: str) -> Finding:
    try:
        require()
    except AuthzError as error:
        return Finding(verdict="wrong", text=f"it is not so that {text}: {error}")
    return Finding(verdict="verified", text=text)


def _require_signature(bundle: Mapping[str, Any], gateway: PublicKey) -> None:
    claims = jose.read(str(bundle["signature"])).verify(gateway, typ=TYP)
    content = {name: value for name, value in bundle.items() if name != "signature"}
    if claims.get("s256") != digest_b64url(content) or claims.get("hold") != bundle["hold"]["id"]:
        raise SignatureRefused("the signature is over something else")


def _action(held: HeldCall, action: Mapping[str, Any]) -> Finding:
    if not held.bound:
        return Finding(
            verdict="open", text="the action statement was not kept, so that its digest cannot be made again"
        )
    same = {
        "server": held.server,
        "session": held.session,
        "actor": f"agent:{held.actor}",
        "chain": [f"agent:{name}" for name in held.chain],
    }
    other = [name for name, value in same.items() if action.get(name) != value]
    if other:
        return Finding(verdict="wrong", text=f"the action is of another call than the hold: `{other[0]}` differs")
    return Finding(verdict="verified", text="the action is the call that the hold is of")


def _require_display(held: HeldCall, text: str) -> None:
    if displayed(held) != text:
        raise InputError("the text was made of another call")


def _signers(bundle: Mapping[str, Any], said: Mapping[str, Any], gateway: PublicKey) -> Mapping[str, PublicKey]:
    if said["signed_by"] == "gateway":
        return {gateway.thumbprint: gateway}
    theirs = [read_jwk(jwk) for jwk in bundle["keys"]["approvers"].get(said["person"], [])]
    return {key.thumbprint: key for key in theirs}


def _counts(said: Mapping[str, Any], held: HeldCall, rule: ApprovalRule) -> bool:
    """Whether a verified approval counts for the rule; of groups only the gateway knows, and says so by `meets`."""
    person, assurance = str(said["person"]), read_assurance(said["assurance"])
    if assurance < rule.assurance or (rule.reason and not str(said["reason"]).strip()):
        return False
    if rule.name not in said["meets"] or (rule.outside_chain and person == held.subject):
        return False
    named = {"subject": held.subject, "owner": held.owner}
    return any(by.startswith("group:") or named.get(by, by.removeprefix("user:")) == person for by in rule.by)


def _rules(held: HeldCall, counted: Mapping[str, set[str]]) -> Iterator[Finding]:
    for rule in held.rules:
        given = sorted(counted[rule.name])
        by = f": {', '.join(map(visible, given))}" if given else ""
        met = len(given) >= rule.quorum
        text = f"rule {visible(rule.name)} is {'met' if met else 'not met'}, {len(given)} of {rule.quorum}{by}"
        wrong = not met and held.state in _RAN
        yield Finding(verdict="wrong" if wrong else "verified", text=text)
        if given and any(by == "owner" or by.startswith("group:") for by in rule.by):
            text = f"that they may answer for {visible(rule.name)} (groups, ownership) is the gateway's word"
            yield Finding(verdict="open", text=text)


def _state(held: HeldCall, verdicts: list[Mapping[str, Any]], counted: Mapping[str, set[str]]) -> Finding:
    denied = any(said["verdict"] != "approve" for said in verdicts)
    met = all(len(counted[rule.name]) >= rule.quorum for rule in held.rules)
    fits = {
        HoldState.DENIED: denied,
        HoldState.PENDING: not denied and not met,
    }.get(held.state, not denied if held.state in _RAN else True)
    if not fits:
        return Finding(verdict="wrong", text=f"its verdicts do not make it {held.state.value}")
    said = f"that it is {held.state.value} fits its verdicts; what came of it is the gateway's word"
    return Finding(verdict="verified", text=said)


def _records(bundle: Mapping[str, Any]) -> Iterator[Finding]:
    """Each record hashes to what it says; whether the log has it is shown by the log alone."""
    statements = set()
    for record in bundle["records"]:
        body = record_bytes(
            sequence=record["sequence"],
            previous=bytes.fromhex(record["previous"]),
            kind=record["kind"],
            at=read_time(record["at"]),
            call=record["call"],
            fields=record["fields"],
        )
        if record_hash(body).hex() != record["hash"]:
            yield Finding(verdict="wrong", text=f"record {record['sequence']} is not what its hash is of")
        statements.add(record["fields"].get("statement"))
    pruned = True  # a log loses its oldest records first: behind one that is there none may lack
    for said in bundle["verdicts"]:
        if statements & {name_of(said["statement"]), said["statement"]}:
            pruned = False
        elif pruned:
            text = f"no record of the verdict of {_who(said)} is in the bundle: the log was pruned before it was made"
            yield Finding(verdict="open", text=text)
        else:
            yield Finding(verdict="wrong", text=f"no record has the verdict of {_who(said)}")
    yield Finding(
        verdict="open", text=f"{len(bundle['records'])} records are as they were hashed; `audit verify` shows the log"
    )


def _who(said: Mapping[str, Any]) -> str:
    return visible(str(said["person"]))


def _sentence(said: Mapping[str, Any]) -> str:
    verb = {"approve": "approved", "deny": "denied", "send-back": "sent back"}[said["verdict"]]
    how = {
        Assurance.CLIENT: "by their client's prompt",
        Assurance.CLIENT_OTHER: "through another channel",
        Assurance.SIGNED_IN: "with their own key" if said["signed_by"] == "approver" else "signed in",
        Assurance.PASSKEY: "with a passkey",
    }[read_assurance(said["assurance"])]
    whose = "their own key" if said["signed_by"] == "approver" else "the gateway"
    because = f": {visible(said['reason'])}" if said["reason"] else ""
    standing = f" by standing approval {visible(said['standing']['id'])}" if said["standing"] else ""
    return f"{_who(said)} {verb} this{standing} {how}, {said['given_at']}, signed by {whose}{because}"
