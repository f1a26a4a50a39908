"""People: how they prove that it is them, and approval rules that nobody could meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcp_authz.doctor.finding import Case, Finding, broken, fine, named, note
from mcp_authz.errors import AuthzError
from mcp_authz.model import ApprovalRule, Assurance
from mcp_authz.principals import Person, PersonName
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.settings import approval_floor
from mcp_authz.store.glance import Inside

PEOPLE, RULES = "people", "approval"
_KEY_FILES: Final = ("*.pem", "*.key", "*.jwk")
_LARGEST: Final = 64 * 1024  # bytes of a key file


async def check_people(case: Case) -> tuple[Finding, ...]:
    """Every active person can prove that it is them who approves."""
    if case.inside is None:
        return ()
    active = [person for person in case.inside.people if person.status == "active"]
    if not active:
        return (note(PEOPLE, "nobody is registered, so no agent can act for anybody", case.command("init")),)
    unproved = [person for person in active if not _proofs(case.inside, person)]
    found = [fine(PEOPLE, f"{len(active)} registered ({named([person.name for person in active])})")]
    for person in unproved:
        said = f"{person.name} has no passkey and no approver key: only a client's own prompt can answer for them"
        found.append(note(PEOPLE, said, case.command("user", "passkey", person.name)))
    return (*found, *_unprotected(case, case.inside))


def _proofs(inside: Inside, person: Person) -> frozenset[Assurance]:
    """How this person could prove an approval outside of a client."""
    proofs = set()
    if any(passkey.status == "active" for passkey in inside.passkeys.get(person.name, ())):
        proofs |= {Assurance.PASSKEY, Assurance.SIGNED_IN}
    if any(key.status == "active" for key in inside.keys.get(f"user:{person.name}", ())):
        proofs.add(Assurance.SIGNED_IN)
    return frozenset(proofs)


def _unprotected(case: Case, inside: Inside) -> Iterator[Finding]:
    """Approver keys that lie beside configuration or store without a passphrase: they prove nobody, and are refused."""
    holders = {
        str(key.thumbprint): person.name
        for person in inside.people
        for key in inside.keys.get(f"user:{person.name}", ())
    }
    for path in _key_files(case):
        try:
            thumbprint = PrivateKey.from_pem(path.read_text(encoding="utf-8", errors="replace")).public.thumbprint
        except (AuthzError, OSError):
            continue
        if (name := holders.get(thumbprint)) is not None:
            said = f"{path} is {name}'s approver key without a passphrase: it is refused, and whoever reads it has it"
            yield broken(PEOPLE, said, f"{case.command('revoke', 'key', thumbprint)}; rm {path}")


def _key_files(case: Case) -> Iterator[Path]:
    for directory in dict.fromkeys((case.config.directory, case.config.data)):
        for pattern in _KEY_FILES:
            try:
                yield from (path for path in sorted(directory.glob(pattern)) if path.stat().st_size <= _LARGEST)
            except OSError:
                continue


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Whom a held call would stand between: for whom it is made, whose agent makes it, and whether that can prompt."""

    subject: PersonName
    owner: PersonName
    interactive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """Why nobody could meet a rule; `lacking` are people who could if they had a passkey."""

    why: str
    lacking: tuple[PersonName, ...] = ()


async def check_rules(case: Case) -> tuple[Finding, ...]:
    """Every approval rule could be met by somebody, for everybody that agents act for now."""
    if case.inside is None:
        return ()
    asks = asked(case, case.inside)
    found: dict[Unmet, tuple[list[str], set[PersonName]]] = {}
    for name, rule in approval_floor(case.config).rules.items():
        for ask in asks:
            if (problem := unmet(rule, ask, case.inside)) is not None:
                names, subjects = found.setdefault(problem, ([], set()))
                subjects.add(ask.subject)
                if name not in names:
                    names.append(name)
    everybody = {ask.subject for ask in asks}
    findings = [_unmet(case, it, names, subjects, everybody) for it, (names, subjects) in found.items()]
    return tuple(findings) or (fine(RULES, "every approval rule can be met"),)


def _unmet(
    case: Case, unmet: Unmet, rules: list[str], subjects: set[PersonName], everybody: set[PersonName]
) -> Finding:
    whose = "" if subjects == everybody else f" for {named(sorted(subjects))}"
    said = f"nobody can meet rule {named([f'`{name}`' for name in rules])}{whose}: {unmet.why}"
    if unmet.lacking:
        return note(RULES, said, case.command("user", "passkey", unmet.lacking[0]))
    do = f"look at [approval.{rules[0]}] in {case.config.source}"
    return note(RULES, said, do) if whose else broken(RULES, said, do)


def asked(case: Case, inside: Inside) -> tuple[Ask, ...]:
    """Every pair of person and owner that a live grant makes; the first person alone where there is no grant."""
    agents = {agent.name: agent for agent in inside.agents if agent.status == "active"}
    live = [grant for grant in inside.grants if grant.status == "active" and grant.expires_at > case.at]
    asks = [
        Ask(
            subject=grant.subject or agents[grant.agent].owner,
            owner=agents[grant.agent].owner,
            interactive=agents[grant.agent].interactive,
        )
        for grant in live
        if grant.agent in agents
    ]
    people = [person.name for person in inside.people if person.status == "active"]
    return tuple(dict.fromkeys(asks)) or tuple(Ask(subject=name, owner=name, interactive=True) for name in people[:1])


def unmet(rule: ApprovalRule, ask: Ask, inside: Inside) -> Unmet | None:
    """Why nobody could meet the rule for this pair; None when somebody could."""
    eligible = [person for person in inside.people if _is_eligible(rule, ask, person)]
    if len(eligible) < rule.quorum:
        who = named([person.name for person in eligible]) or "nobody"
        return Unmet(why=f"it takes {rule.quorum}, and {who} may answer ({', '.join(rule.by)})")
    able = [person for person in eligible if _is_able(rule, ask, inside, person)]
    if len(able) >= rule.quorum:
        return None
    lacking = tuple(sorted(person.name for person in eligible if person not in able))
    proof = "passkey" if rule.assurance is Assurance.PASSKEY else "passkey or approver key"
    return Unmet(why=f"{named(list(lacking))} {'has' if len(lacking) == 1 else 'have'} no {proof}", lacking=lacking)


def _is_eligible(rule: ApprovalRule, ask: Ask, person: Person) -> bool:
    if person.status != "active" or (rule.outside_chain and person.name == ask.subject):
        return False
    names = {f"user:{person.name}", *(f"group:{group}" for group in person.groups)}
    names |= {"subject"} if person.name == ask.subject else set()
    names |= {"owner"} if person.name == ask.owner else set()
    return not names.isdisjoint(rule.by)


def _is_able(rule: ApprovalRule, ask: Ask, inside: Inside, person: Person) -> bool:
    if any(proof >= rule.assurance for proof in _proofs(inside, person)):
        return True
    prompt = rule.by == ("subject",) and rule.quorum == 1 and not rule.outside_chain and not rule.reason
    return prompt and rule.assurance is Assurance.CLIENT and ask.interactive
