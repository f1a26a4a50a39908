"""What the configuration means: approval floor, ways in and classifications, made of its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mcp_authz.administration import RolesOfPeople
from mcp_authz.config import Config, ServerConfig, ToolConfig, read_secret_file
from mcp_authz.config_approval import ApprovalConfig
from mcp_authz.context import ContextAudience
from mcp_authz.errors import ConfigError, ScopeError
from mcp_authz.model import ApprovalRule, Assurance, Classification, Hazard
from mcp_authz.people_elsewhere import Provider
from mcp_authz.principals import AgentName, PersonName, Proof
from mcp_authz.rules.attributes import parse_template
from mcp_authz.rules.classify import Classified, ServerRules
from mcp_authz.rules.decision import ApprovalFloor
from mcp_authz.rules.impersonation import Impersonation
from mcp_authz.rules.observe import Observing
from mcp_authz.rules.scope import Scope, ScopeTemplate, parse_scopes, without_personal
from tool_adapters.presets import load_preset

if TYPE_CHECKING:
    from mcp_authz.web.ways_in import WaysIn

RESERVED_ATTRIBUTES: Final = frozenset({"server", "tool", "environment", "hazard"})


# Not outside the chain: a client agent's owner is the very person that it acts for, and nobody else could answer.
_WITH_PROVIDER: Final = ApprovalConfig(by=("owner",), assurance="signed-in")


def approval_floor(config: Config) -> ApprovalFloor:
    """The approval rules, and which hazards demand one: `destructive` always, `read` and `write` where they are set.

    Requests for a session have a rule too: `session`, or what destructive calls ask for. Where people sign in with a
    provider, the owner of the agent is asked, signed in; without one the subject is, in any way that they can answer.
    """
    unset = ApprovalConfig() if config.sign_in.provider is None else _WITH_PROVIDER
    configured = {"destructive": unset, **config.approval}
    configured.setdefault("session", configured["destructive"])
    rules = {name: _approval_rule(name, rule) for name, rule in configured.items()}
    return ApprovalFloor(rules=rules, by_hazard={h: h.value for h in Hazard if h.value in rules})


def ways_in(config: Config) -> WaysIn:
    """How people sign in to the page.

    Raises:
        ConfigError: the file with the client's secret is missing, or others than its owner may read it.
    """
    from mcp_authz.web.ways_in import WaysIn  # here: only a gateway has the page, and commands start without it

    it = config.sign_in.provider
    if it is None:
        return WaysIn(passkeys=config.sign_in.passkeys)
    provider = Provider(
        issuer=it.issuer,
        client_id=it.client_id,
        client_secret=None if it.client_secret_file is None else read_secret_file(config, it.client_secret_file),
        name=it.name,
        scopes=it.scopes,
        person_claim=it.person_claim,
        email_domain=it.email_domain,
        groups_claim=it.groups_claim,
        groups=it.groups,
        allowed_groups=frozenset(it.allowed_groups),
        provision=it.provision,
    )
    return WaysIn(passkeys=config.sign_in.passkeys, provider=provider)


def role_scopes(config: Config) -> dict[str, frozenset[Scope]]:
    """The scopes of each role.

    Raises:
        ConfigError: one is no scope.
    """
    found = {}
    for role, scopes in config.roles.items():
        try:
            found[role] = without_personal(parse_scopes(scopes))
        except ScopeError as error:
            raise ConfigError(f"`roles.{role}`: {error}") from None
    return found


def impersonations(config: Config) -> tuple[Impersonation, ...]:
    """Who may impersonate whom, and for which scopes.

    Raises:
        ConfigError: a scope is no scope.
    """
    try:
        return tuple(
            Impersonation(
                agent=AgentName(one.agent),
                person=PersonName(one.person),
                scope=without_personal(parse_scopes(one.scopes)),
            )
            for one in config.impersonation
        )
    except ScopeError as error:
        raise ConfigError(f"`impersonation.scopes`: {error}") from None


def _approval_rule(name: str, rule: ApprovalConfig) -> ApprovalRule:
    return ApprovalRule(
        name=name,
        by=rule.by,
        quorum=rule.quorum,
        outside_chain=rule.outside_chain,
        assurance=Assurance[rule.assurance.upper().replace("-", "_")],
        expires=rule.expires,
        reason=rule.reason,
    )


def least_proof(config: Config) -> Mapping[Hazard, Proof]:
    """The proof that calls of each hazard need at least."""
    return {hazard: Proof[getattr(config.proof, hazard.value).upper()] for hazard in Hazard}


def server_rules(name: str, server: ServerConfig, least: Mapping[Hazard, Proof] | None = None) -> ServerRules:
    """What the configuration and its preset say of one server's tools; `least` is what every server's calls need.

    Raises:
        ConfigError: an unknown preset, or a scope that is no scope.
    """
    entries = {tool: _classification(name, tool, entry) for tool, entry in server.tools.items()}
    return ServerRules(
        server=name,
        environment=server.environment,
        exact={tool: entry for tool, entry in entries.items() if "*" not in tool},
        patterns=tuple((tool, entry) for tool, entry in entries.items() if "*" in tool),
        preset=_preset(server.preset) if server.preset else {},
        observing=_observing(name, server),
        least=least or {},
    )


def roles_of_people(config: Config) -> RolesOfPeople:
    """Who has which role over the whole gateway."""
    it = config.administration
    return RolesOfPeople(admins=frozenset(it.admins), auditors=frozenset(it.auditors))


def context_audiences(config: Config) -> Mapping[str, ContextAudience]:
    """The tool servers that get a context token with each call, each as the audience that it is configured to be."""
    return {
        name: ContextAudience(audience=server.context_audience or name, subject=server.context_subject)
        for name, server in config.servers.items()
        if server.context
    }


def _observing(name: str, server: ServerConfig) -> Observing | None:
    # A pattern would observe tools that nobody has seen yet: what destroys is named, one by one.
    if pattern := next((tool for tool in server.observe_destructive if "*" in tool), None):
        raise ConfigError(f"`servers.{name}.observe_destructive`: `{pattern}` is a pattern; name each tool exactly")
    if server.mode != "observe":
        return None
    return Observing(destructive=frozenset(server.observe_destructive))


def _classification(server: str, tool: str, entry: ToolConfig) -> Classification:
    try:
        scopes = tuple(ScopeTemplate.parse(scope) for scope in entry.scopes)
    except ScopeError as error:
        raise ConfigError(f"`servers.{server}.tools.{tool}.scopes`: {error}") from None
    if reserved := sorted(RESERVED_ATTRIBUTES & entry.resource.keys()):
        raise ConfigError(
            f"`servers.{server}.tools.{tool}.resource`: `{reserved[0]}` is the gateway's; name it otherwise"
        )
    for template in entry.resource.values():
        parse_template(template)
    return Classification(
        action=entry.action or "",  # what is not said here follows from the name of the tool it is about
        hazard=Hazard(entry.hazard),
        scopes=scopes,
        resource=entry.resource,
        approval=entry.approval,
        proof=Proof[entry.proof.upper()],
    )


def _preset(name: str) -> Mapping[str, Classified]:
    preset = load_preset(name)
    return {
        tool.name: Classified(
            classification=Classification(
                action=tool.action,
                hazard=tool.hazard,
                scopes=tool.scopes,
                resource=tool.resource,
                approval=tool.approval,
                by=f"preset:{name}",
            ),
            digests=tool.definitions,
        )
        for tool in preset.tools.values()
    }


def require_rules(rules: Mapping[str, ServerRules], floor: ApprovalFloor) -> None:
    """Every approval rule that a tool names exists, and every one that a preset names for a tool it decides about.

    Raises:
        ConfigError: naming the tool and the rule.
    """
    for server, of in rules.items():
        for tool, entry in [*of.exact.items(), *of.patterns]:
            if entry.approval is not None and entry.approval not in floor.rules:
                raise ConfigError(
                    f"`servers.{server}.tools.{tool}.approval`: there is no rule `{entry.approval}`; "
                    f"add [approval.{entry.approval}]"
                )
        for tool, known in of.preset.items():
            name = known.classification.approval
            if name is not None and name not in floor.rules and tool not in of.exact:
                raise ConfigError(
                    f"`servers.{server}.preset`: it holds `{tool}` by rule `{name}`, and there is none; "
                    f"add [approval.{name}], or classify `{tool}` under [servers.{server}.tools]"
                )
