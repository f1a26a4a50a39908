"""The evidence in an excerpt of the log, against its records: one finding for each thing, good, wrong, or left open.

What is believed of a key comes from records: a record that names a key by its thumbprint names one key only. Nothing
in the evidence may be there for nothing: what no record names is wrong, so that none of it can be changed unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import AuthzError, InputError
from mcp_authz.rules import call_proof, jose, link_id, signed_link, standing_approval, verdict
from mcp_authz.rules.display import visible
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.excerpt import Excerpted
from mcp_authz.rules.keys import PublicKey, b64url, unb64url
from mcp_authz.rules.redaction import REDACTED
from mcp_authz.rules.statement_checks import PasskeyCheck, challenge_of, read_proof
from mcp_authz.rules.verdict_checks import Finding, Trust, verify_bundle

MEMBERS: Final = ("keys", "passkeys", "links", "calls", "verdicts", "shown")


@dataclass(slots=True, kw_only=True)
class _Evidence:
    """What there is, and which of it was needed."""

    records: Sequence[Excerpted]
    keys: Mapping[str, PublicKey]
    passkeys: Mapping[bytes, bytes]
    check: PasskeyCheck
    used: set[str | bytes] = field(default_factory=set)
    named: set[str] = field(default_factory=set)  # proofs and statements that are there
    bound: set[str] = field(default_factory=set)  # people whose passkey a record says is theirs

    def of(self, kind: str) -> Iterator[tuple[Excerpted, Mapping[str, Any]]]:
        """The records of this kind, with their fields."""
        yield from ((one, one.body["fields"]) for one in self.records if one.kind == kind)

    def key(self, thumbprint: object) -> PublicKey:
        """The key with this thumbprint.

        Raises:
            InputError: it is not there.
        """
        if str(thumbprint) not in self.keys:
            raise InputError(f"key {visible(str(thumbprint))} is not in the bundle")
        self.used.add(str(thumbprint))
        return self.keys[str(thumbprint)]


def check_evidence(
    records: Sequence[Excerpted], evidence: Mapping[str, Any], check: PasskeyCheck
) -> tuple[Finding, ...]:
    """Return what the evidence shows beside the records, which were verified before.

    Raises:
        InputError: it is no such evidence.
    """
    if set(evidence) != set(MEMBERS):
        raise InputError("the evidence has another set of members than it should")
    try:
        keys = [PublicKey.from_jwk(one) for one in evidence["keys"]]
        found = _Evidence(
            records=records,
            keys={key.thumbprint: key for key in keys},
            passkeys={unb64url(one): unb64url(key) for one, key in evidence["passkeys"].items()},
            check=check,
        )
        if len(found.keys) != len(evidence["keys"]):
            raise InputError("a key is there twice")
        return tuple(_findings(found, evidence))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the evidence cannot be read: {type(error).__name__}") from None


def _findings(it: _Evidence, evidence: Mapping[str, Any]) -> Iterator[Finding]:
    for chain in evidence["links"]:
        yield from _guarded("the signed links", _links(it, chain))
    for text in evidence["calls"]:
        yield from _guarded("a signed call", _call(it, text))
    for text in evidence["verdicts"]:
        yield from _guarded("a verdict", _verdict(it, text))
    for bundle in evidence["shown"]:
        yield from _guarded("what was shown", _shown(it, bundle))
    yield from _missing(it)
    unused = {*it.keys, *it.passkeys} - it.used
    if unused:
        yield Finding(verdict="wrong", text=f"{len(unused)} keys are in the bundle that nothing in it is signed by")


def _guarded(what: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except AuthzError as error:
        yield Finding(verdict="wrong", text=f"{what}: {visible(str(error))}")


def _links(it: _Evidence, chain: Sequence[str]) -> Iterator[Finding]:
    """Each link by who had what it gives; the root by the gateway's key that its own header names."""
    links = signed_link.verify_derived(chain)
    root = jose.read(chain[0], max_depth=limits.LINK_JSON_DEPTH)
    root.verify(it.key(root.kid), typ=signed_link.TYP)
    recorded = {str(f.get("statement")): one for one, f in it.of("delegation") if f.get("statement")}
    if links[-1].digest.hex() not in recorded:
        raise InputError("no record has the last link")
    record = recorded[links[-1].digest.hex()]
    steps = f"{len(links)} signed link{'s'[: len(links) != 1]}"
    narrow = "each gives no more than the one before, and is signed by who had that"
    yield Finding(
        verdict="verified",
        text=f"{steps}, root to leaf: {narrow}; {_by(record)} has the last",
    )
    yield _gateways(it, "issuer", str(root.kid), "the key of the first link")
    for link in links[1:]:
        made = recorded.get(link.digest.hex())
        if link.signer is None or made is None:
            yield Finding(verdict="open", text=f"who made link {link.id}: no record in the bundle says so")
        else:
            yield from _whose(it, "agent", str(made.body["fields"].get("from")), link.signer.thumbprint)


def _call(it: _Evidence, text: str) -> Iterator[Finding]:
    name, unverified = name_of(text), jose.read(text, max_bytes=limits.CALL_PROOF_BYTES)
    records = [(one, f) for one, f in it.of("decision") if f.get("proof_digest") == name]
    if not records:
        raise InputError("no record names it")
    it.named.add(name)
    for one, f in records:
        claims = unverified.verify(it.key(f["key"]), typ=call_proof.TYP)
        same = {"jti": f["proof_id"], "aat_id": link_id.jti(str(f["link"]))}
        for claim, value in same.items():
            if not _is_same(claims.get(claim), value):
                raise InputError(f"`{claim}` is not what {_by(one)} has")
        if claims.get("aat_tool") not in {f.get("tool"), f.get("method")}:
            raise InputError(f"it is of another tool than {_by(one)}")
    one, f = records[0]
    tool = visible(str(f["tool"]))
    yield Finding(
        verdict="verified",
        text=f"{_bare(f['actor'])} signed exactly this call of {tool}, its arguments included; {_by(one)} names it",
    )
    yield from _whose(it, "agent", str(f["actor"]), str(f["key"]))


def _is_same(signed: object, recorded: object) -> bool:
    """Whether the record has what was signed, or had something taken out of it: the statement is named by digest."""
    return signed == recorded or (isinstance(signed, str) and isinstance(recorded, str) and REDACTED in recorded)


def _verdict(it: _Evidence, text: str) -> Iterator[Finding]:
    name, unverified = name_of(text), jose.read(text)
    records = [(one, f) for one, f in it.of("approval") if f.get("statement") == name]
    if not records:
        raise InputError("no record names it")
    it.named.add(name)
    for one, f in records:
        standing = "standing" in f
        claims = unverified.verify(it.key(f["signed_by"]), typ=standing_approval.TYP if standing else verdict.TYP)
        same = {"sub": f["person"], "verdict": f["verdict"], "assurance": f["assurance"], "reason": f["reason"]}
        for claim, value in {**same, **({} if standing else {"hold": f["hold"]})}.items():
            if not _is_same(claims.get(claim), value):
                raise InputError(f"`{claim}` is not what {_by(one)} has")
    one, f = records[0]
    person = str(f["person"])
    verb = {"approve": "approved", "deny": "denied"}.get(str(f["verdict"]), "sent back")
    proof = claims.get("proof")
    if isinstance(proof, dict) and proof.get("type") == "webauthn":
        shown = read_proof(proof)
        if shown.credential not in it.passkeys:
            raise InputError("the passkey's public key is not in the bundle")
        it.used.add(shown.credential)
        challenge = challenge_of(claims, standing=standing, nonce=shown.nonce)
        verdict.require_challenge(shown, challenge)
        it.check(shown, it.passkeys[shown.credential], challenge)
        yield Finding(
            verdict="verified", text=f"a passkey signed that {_bare(person)} {verb} exactly this; {_by(one)} names it"
        )
        yield (whose := _whose_passkey(it, person, shown.credential))
        it.bound |= {person} if whose.verdict == "verified" else set()
    elif proof is None and f["assurance"] == "signed-in":
        yield Finding(
            verdict="verified",
            text=f"{_bare(person)}'s own key signed that they {verb} exactly this; {_by(one)} names it",
        )
        yield from _whose(it, "person", person, str(f["signed_by"]))
    else:
        yield Finding(
            verdict="verified", text=f"the gateway signed that {_bare(person)} {verb} this; {_by(one)} names it"
        )
        yield _gateways(it, "verdict", str(f["signed_by"]), "the key of the verdict")
        yield Finding(verdict="open", text=f"that {_bare(person)} answered ({f['assurance']}) is the gateway's word")


def _shown(it: _Evidence, bundle: Mapping[str, Any]) -> Iterator[Finding]:
    """What was shown, as a verdict bundle, by keys that records name; its own checks are those of `holds verify`."""
    hold = bundle["hold"]["id"]
    if hold not in {f.get("hold") for _, f in it.of("approval")}:
        raise InputError("it is of a call that no record is of")
    for said in bundle["verdicts"]:
        if name_of(str(said["statement"])) not in it.named:
            raise InputError("it has a verdict that no record is of")
    trusted = {name: key for name, key in it.keys.items() if name in it.used}
    gateway = str(bundle["keys"]["gateway"]["kid"])
    answered = {f"that the passkey is {_bare(person)}'s is the gateway's word" for person in it.bound}
    for one in verify_bundle(bundle, Trust(keys=trusted if gateway in trusted else None, passkey=it.check)):
        if one.verdict != "open" or one.text not in answered:  # a record has shown it
            yield one


def _missing(it: _Evidence) -> Iterator[Finding]:
    for kind, member, what in (("decision", "proof_digest", "signed call"), ("approval", "statement", "verdict")):
        names = {str(f[member]): one for one, f in it.of(kind) if member in f}
        out = "left out (`--with-arguments` takes it along)" if kind == "decision" else "left out"
        for name, one in names.items():
            if name not in it.named:
                text = f"the {what} that {_by(one)} names is not in the bundle: it was {out}, or shredded"
                yield Finding(verdict="open", text=text)


def _whose(it: _Evidence, member: str, holder: str, thumbprint: str) -> Iterator[Finding]:
    for one, f in it.of("enrolment"):
        if f.get(member) == holder and thumbprint in {f.get("key"), *(f.get("keys") or ())}:
            yield Finding(verdict="verified", text=f"{_by(one)} says that this key is {_bare(holder)}'s")
            return
    yield Finding(verdict="open", text=f"that this key is {_bare(holder)}'s: no record in the bundle says so")


def _whose_passkey(it: _Evidence, person: str, credential: bytes) -> Finding:
    """Whether the public key that verified is the one that the person registered, as a record has it.

    Raises:
        InputError: the record has another one, or another person.
    """
    digest = hashlib.sha256(it.passkeys[credential]).hexdigest()
    for one, f in it.of("enrolment"):
        if f.get("passkey") == b64url(credential) and "digest" in f:
            if (f["digest"], f.get("person")) != (digest, person):
                raise InputError(f"the passkey is another one, or another person's, than {_by(one)} has")
            return Finding(verdict="verified", text=f"{_by(one)} says that this passkey is {_bare(person)}'s")
    return Finding(verdict="open", text=f"that this passkey is {_bare(person)}'s is the gateway's word")


def _gateways(it: _Evidence, use: str, thumbprint: str, what: str) -> Finding:
    for one, f in it.of("administration"):
        if f.get("use") == use and f.get("key") == thumbprint:
            return Finding(verdict="verified", text=f"{_by(one)} says that {what} is the gateway's")
    return Finding(verdict="open", text=f"that {what} is the gateway's: no record in the bundle says so")


def _by(one: Excerpted) -> str:
    return f"record {one.sequence}" + ("" if one.checkpoint is not None else " (which no checkpoint covers)")


def _bare(name: object) -> str:
    return visible(str(name).partition(":")[2] or str(name))


def printable(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings without anything that a terminal would act on."""
    return tuple(replace(one, text="".join(c if c == "\\" else visible(c) for c in one.text)) for one in found)
