"""Cedar, in process: the default policy engine, and the only door to cedarpy.

**Where the document stands in Cedar.** `principal` is an `Agent` with the attributes of `actor`, `action` is
`Action::"pr.create"`, `resource` is a `Tool` with the attributes of `resource`, `context` is the rest
(`context.arguments.draft == true`, `context.scope.contains("pr:write:draft")`). Times are Cedar datetimes, `chain` is
the set of its agents' names. `cedar_request` translates, `docs/policy-input.md` lists it all.

**Types.** Arguments cannot be typed beforehand, and cedarpy has neither open records nor permissive validation; tags
have one type per entity, which arguments have not. So policies are validated strictly against a schema in which each
argument that a policy names has the type that the policy uses it as (`cedar_schema`), and is optional: reading it
without `has` is refused at load. Requests are not validated against that schema, because it would refuse arguments
that no policy names; a value of another type is an evaluation error, and any error is a denial.

**Approval.** `@approval("rule")` says which approval rule a policy is about. A permit with it always asks for that
rule; it may also read `context.approval`, and then stays a denial until the approval is there. A forbid with it yields
to the approval in its own condition (`unless`). A denial is asked again with all those approvals supposed, by passkey
and now: every rule that made the difference is asked for, and the answer is checked once more with exactly those. If
they were all given already, the denial stands: something else about the approval (its assurance, its age) falls short.
Rules are never alternatives: each one named must be met.

**Obligations.** `@step_up("300")` on a permit says how many seconds ago the person may have signed in for what it
permits (RFC 9470); `@rate_limit("10/m")`, `@budget("NAME")`, `@notify("NAME")` and `@redact("NAME")` say what else goes
along with it (`rules.obligation`). Every such permit that applies counts, also beside one that demands nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

import cedarpy

from mcp_authz.errors import InputError, PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.cedar_request import CedarRequest
from mcp_authz.policy.cedar_schema import names_read, schema
from mcp_authz.policy.cedar_source import ANNOTATIONS
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.rules.freshness import STEP_UP
from mcp_authz.rules.obligation import NAMED, RATE_LIMIT, Names, require_readable, unknown_names

_KEPT: Final = 2048  # characters of entities that are kept parsed; a thousand of them are a few megabytes
_ASKS: Final = (STEP_UP, RATE_LIMIT, *sorted(NAMED))  # annotations of permits, beside `@approval`
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a policy or an approval rule
_MISSING: Final = re.compile(r"error while evaluating policy `([^`]+)`: .*? does not have the attribute `(\w+)`", re.S)
_FAILED: Final = re.compile(r"error while evaluating policy `([^`]+)`: ")


@dataclass(frozen=True, slots=True, kw_only=True)
class CedarEngine:
    """A validated policy set, parsed once."""

    digest: str
    approvals: Mapping[str, str]  # policy id -> the approval rule that it asks for
    asks: Mapping[str, tuple[Obligation, ...]]  # policy id -> what else goes along with it
    names: frozenset[str]  # the attributes that some policy mentions
    policies: cedarpy.PolicySet  # in which a policy's id is its `@id`

    @classmethod
    def load(
        cls, sources: Mapping[str, str], *, actions: Collection[str] | None = None, names: Names | None = None
    ) -> CedarEngine:
        """Return the engine for these files, file name to text, once they are known to be sound.

        Args:
            sources: Cedar policies; none at all is a set that denies everything.
            actions: the actions there are; with it, a policy for an action that does not exist is refused.
            names: what the configuration has for obligations; with it, one that names something else is refused.

        Raises:
            PolicyError: a file cannot be parsed, a policy has no `@id` or another's, is a template, or fails
                validation. The message names the file, and line and id of the policy where they are known.
        """
        files = {name: _parsed(name, text) for name, text in sorted(sources.items())}
        if empty := [name for name, file in files.items() if not file]:  # cut off; what it forbade would be permitted
            raise PolicyError(f"{empty[0]}: has no policy; write one, or take the file out of the configuration")
        policies: dict[str, _Policy] = {}
        for policy in (policy for file in files.values() for policy in file):
            if policy.id in policies:
                raise PolicyError(f"{policy.place}: so is another policy called; ids are unique")
            policies[policy.id] = policy
        _validate(sources, files, actions)
        _require_configured(policies.values(), names)
        return cls(
            digest=_digest(sources),
            approvals={policy.id: policy.approval for policy in policies.values() if policy.approval is not None},
            asks={policy.id: policy.asks for policy in policies.values() if policy.asks},
            names=names_read(policy.body for policy in policies.values()),
            policies=_policy_set(policies.values()),
        )

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        """Return the answer; whatever goes wrong is an answer with `permit=False` and `errors`, never a raise."""
        try:
            return self._with_obligations(self._decided(CedarRequest.of(document, self.names)))
        except PolicyError as error:
            return PolicyAnswer(permit=False, because=(), errors=(str(error),))

    def _with_obligations(self, answer: PolicyAnswer) -> PolicyAnswer:
        """The answer with everything that goes along with its permits, in one order."""
        asked = {one for policy in answer.because for one in self.asks.get(policy, ())}
        if not answer.permit or not asked:
            return answer
        return replace(answer, obligations=(*answer.obligations, *sorted(asked, key=_place)))

    def _decided(self, request: CedarRequest) -> PolicyAnswer:
        given = self._judge(request, request.approval)
        if given.errors:
            return given.answer()
        without = given if request.approval is None else self._judge(request, None)
        if given.permit:
            return given.answer(self._needed(without, given, request.rules))
        return self._denied(request, given, without)

    def _needed(self, without: _Judgement, given: _Judgement, rules: frozenset[str]) -> frozenset[str]:
        """What a permit rests on, so that the approval it rests on is used up by this call and no other."""
        if without.permit:
            return self._rules(given.because)
        return self._rules(without.because | given.because) or rules

    def _denied(self, request: CedarRequest, given: _Judgement, without: _Judgement) -> PolicyAnswer:
        """A denial, or the permit that approvals would make of it."""
        if not self.approvals:
            return given.answer()
        supposed = self._judge(request, request.supposing({*request.rules, *self.approvals.values()}))
        if not supposed.permit:
            return given.answer(errors=supposed.errors)
        asked = self._rules(without.because | supposed.because)
        if asked <= request.rules:
            return given.answer()
        exactly = self._judge(request, request.supposing(asked))
        if not exactly.permit:
            return given.answer(errors=exactly.errors)
        yielded = frozenset(policy for policy in without.because if policy in self.approvals)
        return exactly.answer(asked, because=yielded)

    def _rules(self, policies: Iterable[str]) -> frozenset[str]:
        """The approval rules that these policies ask for."""
        return frozenset(self.approvals[policy] for policy in policies if policy in self.approvals)

    def _judge(self, request: CedarRequest, approval: Mapping[str, Any] | None) -> _Judgement:
        result = cedarpy.is_authorized(request.with_approval(approval), self.policies, _entities(request.entities))
        errors = tuple(_without_values(error) for error in result.diagnostics.errors)
        if result.decision is cedarpy.Decision.NoDecision and not errors:
            errors = ("cedar came to no decision",)
        return _Judgement(
            permit=result.allowed and not errors, because=frozenset(result.diagnostics.reasons), errors=errors
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What Cedar says of one request."""

    permit: bool
    because: frozenset[str]  # the permits that match, or the forbids
    errors: tuple[str, ...]

    def answer(
        self,
        asked: frozenset[str] = frozenset(),
        *,
        because: frozenset[str] = frozenset(),
        errors: tuple[str, ...] = (),
    ) -> PolicyAnswer:
        """Return it as the port's answer, with the approval rules asked for, and further policies and errors."""
        return PolicyAnswer(
            permit=self.permit and not errors,
            because=tuple(RuleId(policy) for policy in sorted(self.because | because)),
            obligations=tuple(Obligation(kind="approval", argument=rule) for rule in sorted(asked)),
            errors=self.errors + errors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    """One policy as it was read; `body` is Cedar's JSON form of it."""

    id: str
    place: str  # file, line and id, for people
    approval: str | None
    asks: tuple[Obligation, ...]
    body: Mapping[str, Any]


def _entities(text: str) -> cedarpy.Entities:
    """Return the parsed entities; most calls are of the same few agents and resources, so short ones are kept."""
    try:
        return _parsed_entities(text) if len(text) <= _KEPT else _parsed_entities.__wrapped__(text)
    except ValueError:
        raise PolicyError("cedar could not read the input") from None


@lru_cache(maxsize=1024)
def _parsed_entities(text: str) -> cedarpy.Entities:
    return cedarpy.Entities.from_json_str(text)


def _without_values(error: str) -> str:
    """Return what may be recorded of one of Cedar's errors, which may quote arguments."""
    if missing := _MISSING.match(error):
        return f"policy `{missing[1]}` reads `{missing[2]}`, which is not there"
    if failed := _FAILED.match(error):
        return f"policy `{failed[1]}` could not be evaluated: a value is not what the policy takes it for"
    return "cedar could not read the input"


def _parsed(name: str, text: str) -> tuple[_Policy, ...]:
    """Return the policies of one file, in their order."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{name}: cannot be parsed: {error}") from None
    if parsed["templates"]:
        raise PolicyError(f"{name}: a template (`?principal`, `?resource`) decides nothing; write a policy")
    bodies = parsed["staticPolicies"]  # `policy0`, `policy1`, ... in the order of the file
    return tuple(_policy(name, text, number, bodies[f"policy{number}"]) for number in range(len(bodies)))


def _policy(name: str, text: str, number: int, body: Mapping[str, Any]) -> _Policy:
    annotations = body.get("annotations", {})
    policy_id, approval = annotations.get("id"), annotations.get("approval")
    if not policy_id or not _NAME.fullmatch(policy_id):
        raise PolicyError(f'{name}: policy {number + 1} has no `@id("...")` of letters, digits, `.`, `_` and `-`')
    lines = [line for line, words in enumerate(text.splitlines(), 1) if "@id" in words and f'"{policy_id}"' in words]
    place = f"{name}:{lines[-1]}: policy `{policy_id}`" if lines else f"{name}: policy `{policy_id}`"
    if unknown := sorted(annotations.keys() - ANNOTATIONS):  # a misspelt obligation would else be none
        there = ", ".join(f"@{name}" for name in sorted(ANNOTATIONS))
        raise PolicyError(f"{place}: there is no annotation `@{unknown[0]}`; there is {there}")
    if "approval" in annotations and not _NAME.fullmatch(approval or ""):
        raise PolicyError(f'{place}: `@approval("...")` names no rule')
    asks = tuple(_asked(place, body, RuleId(policy_id), kind) for kind in _ASKS if kind in annotations)
    return _Policy(id=policy_id, place=place, approval=approval, asks=asks, body=body)


def _asked(place: str, body: Mapping[str, Any], policy: RuleId, kind: str) -> Obligation:
    """Return what an annotation asks for, once it is known to be readable, and of a permit."""
    if body.get("effect") != "permit":
        raise PolicyError(f"{place}: `@{kind}` stands on a permit: a forbid denies, whatever else is done")
    argument = body["annotations"][kind] or ""
    asked = Obligation(kind=kind, argument=argument, rule=policy if kind == RATE_LIMIT else None)
    try:
        require_readable(asked)
    except InputError as error:
        raise PolicyError(f'{place}: `@{kind}("...")`: {error}') from None
    return asked


def _place(obligation: Obligation) -> tuple[int, int, str, str]:
    """Where an obligation stands among those of an answer: by kind, the shortest time since a sign-in first."""
    seconds = int(obligation.argument) if obligation.kind == STEP_UP else 0
    return _ASKS.index(obligation.kind), seconds, obligation.argument, obligation.rule or ""


def _require_configured(policies: Iterable[_Policy], names: Names | None) -> None:
    for policy in policies:
        if names is not None and (missing := unknown_names(policy.asks, names)):
            raise PolicyError(f"{policy.place}: the configuration has no {missing[0]}; add it, or name another")


def _validate(
    sources: Mapping[str, str], files: Mapping[str, tuple[_Policy, ...]], actions: Collection[str] | None
) -> None:
    """Return once every policy is known to be sound against the document.

    Raises:
        PolicyError: one is not, with all that the validator says of its file.
    """
    try:
        form = schema({policy.place: policy.body for file in files.values() for policy in file}, actions)
    except RecursionError:
        raise PolicyError("a policy is nested too deeply") from None
    handle = cedarpy.Schema.from_json_str(json.dumps(form))
    for name, file in files.items():
        result = cedarpy.validate_policies(sources[name], handle)
        if not result.validation_passed:
            places = {f"policy{number}": policy.place for number, policy in enumerate(file)}
            said = [f"{places.get(e.policy_id, name)}: {_plain(e.error, e.policy_id)}" for e in result.errors]
            raise PolicyError("; ".join(dict.fromkeys(said)) or f"{name}: fails validation")


def _plain(error: str, policy: str) -> str:
    return error.removeprefix(f"for policy `{policy}`, ")


def _policy_set(policies: Iterable[_Policy]) -> cedarpy.PolicySet:
    static = {policy.id: policy.body for policy in policies}
    return cedarpy.PolicySet.from_json_str(json.dumps({"templates": {}, "staticPolicies": static, "templateLinks": []}))


def _digest(sources: Mapping[str, str]) -> str:
    """Hex SHA-256 over engine and files; each text goes in with its length, so that none can pass for two."""
    state = hashlib.sha256(f"cedarpy {version('cedarpy')}\n".encode())
    for name, text in sorted(sources.items()):
        for part in (name.encode(), text.encode()):
            state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()
