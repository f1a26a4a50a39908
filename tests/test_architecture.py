"""Imports run one way, and each library has one door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("mcp_authz/**/*.py"), *ROOT.glob("tool_adapters/**/*.py")])

# Lower layers first; a module may import from its own layer and from lower ones.
LAYERS = [
    # Vocabulary: the nouns, and the value types that carry their own rule (a scope, a constraint, a key).
    {
        "mcp_authz",
        "mcp_authz.errors",
        "mcp_authz.limits",
        "mcp_authz.model",
        "mcp_authz.principals",
        "mcp_authz.passkey",
        "mcp_authz.signing_key",
        "mcp_authz.authorization",
        "mcp_authz.rules",
        "mcp_authz.rules.scope",
        "mcp_authz.rules.constraint",
        "mcp_authz.rules.constraint_kinds",
        "mcp_authz.rules.strict_json",
        "mcp_authz.rules.canonical",
        "mcp_authz.rules.keys",
    },
    {"mcp_authz.rules.*", "mcp_authz.policy.engine", "mcp_authz.policy.document"},
    {
        "mcp_authz.locking",
        "mcp_authz.new_file",
        "mcp_authz.unix_socket",
        "mcp_authz.downstream",
        "mcp_authz.seldom",
        "mcp_authz.store.facts",
        "mcp_authz.store.calls_port",
        "mcp_authz.store.people",
        "mcp_authz.store.ports",
        "mcp_authz.store.task_port",
        "mcp_authz.store.evidence_port",
        "mcp_authz.store.switch_port",
        "mcp_authz.store.standing_port",
        "mcp_authz.store.retention_port",
        "mcp_authz.store.overview_port",
        "mcp_authz.store",
        "mcp_authz.policy",
    },
    {
        "mcp_authz.accounts",
        "mcp_authz.ids",
        "mcp_authz.audit",
        "mcp_authz.audit_reading",
        "mcp_authz.taken_away",
        "mcp_authz.audit_excerpts",
        "mcp_authz.audit_bundles",
        "mcp_authz.shredding",
        "mcp_authz.metrics",
        "mcp_authz.spans",
        "mcp_authz.telemetry",
        "mcp_authz.audit_story",
        "mcp_authz.checkpoint_delivery",
        "mcp_authz.checkpoints",
        "mcp_authz.underway",
        "mcp_authz.agents",
        "mcp_authz.changing",
        "mcp_authz.enrolment",
        "mcp_authz.hosted",
        "mcp_authz.standing",
        "mcp_authz.standing_approvals",
        "mcp_authz.opening",
        "mcp_authz.step_ups",
        "mcp_authz.consent",
        "mcp_authz.clients",
        "mcp_authz.client_documents",
        "mcp_authz.renewing",
        "mcp_authz.people_elsewhere",
        "mcp_authz.provider_keys",
        "mcp_authz.enterprise",
        "mcp_authz.sessions",
        "mcp_authz.delegating",
        "mcp_authz.hop",
        "mcp_authz.issuer_keys",
        "mcp_authz.key_rotation",
        "mcp_authz.live_keys",
        "mcp_authz.redeeming",
        "mcp_authz.signatures",
        "mcp_authz.catalog",
        "mcp_authz.approvals",
        "mcp_authz.hearing",
        "mcp_authz.verdict_bundles",
        "mcp_authz.other_client",
        "mcp_authz.deciding",
        "mcp_authz.revocation",
        "mcp_authz.stopping",
        "mcp_authz.halting",
        "mcp_authz.overview",
        "mcp_authz.audit_proofs",
        "mcp_authz.naming",
        "mcp_authz.relations",
        "mcp_authz.administration",
        "mcp_authz.readable_call",
        "mcp_authz.turns",
        "mcp_authz.attempts",
        "mcp_authz.views",
        "mcp_authz.running",
        "mcp_authz.grounds",
        "mcp_authz.outcome",
        "mcp_authz.obligations",
        "mcp_authz.offers",
        "mcp_authz.relay",
        "mcp_authz.evaluation",
        "mcp_authz.inputs",
        "mcp_authz.suggesting",
        "mcp_authz.policy.cedar_writing",
        "mcp_authz.explaining",
        "mcp_authz.remedies",
        "mcp_authz.policy.live",
        "mcp_authz.policy.shadow",
        "mcp_authz.holding",
        "mcp_authz.recovering",
        "mcp_authz.open_request",
        "mcp_authz.waits",
        "mcp_authz.requesting",
        "mcp_authz.parts",
        "mcp_authz.proving",
        "mcp_authz.forwarding",
        "mcp_authz.context",
        "mcp_authz.canary",
        "mcp_authz.identity",
        "mcp_authz.tasks",
        "mcp_authz.task_channel",
        "mcp_authz.task_outcome",
        "mcp_authz.gateway",
    },
    {
        "mcp_authz.store.*",
        "mcp_authz.policy.*",
        "mcp_authz.oauth",
        "mcp_authz.oauth.*",
        "mcp_authz.protocol",
        "mcp_authz.protocol.*",
        "mcp_authz.verify",
        "mcp_authz.published_keys",
        "mcp_authz.client",
        "mcp_authz.client.*",
        "mcp_authz.web",
        "mcp_authz.web.*",
        "mcp_authz.desktop",
        "mcp_authz.tracing",
        "mcp_authz.checkpoint_sinks",
        "mcp_authz.retention",
        "mcp_authz.fetching",
        "mcp_authz.posting",
        "mcp_authz.webhooks",
        "mcp_authz.provider_fetching",
        "tool_adapters",
        "tool_adapters.*",
    },
    {
        "mcp_authz.config",
        "mcp_authz.config_approval",
        "mcp_authz.config_file",
        "mcp_authz.config_obligations",
        "mcp_authz.config_people",
        "mcp_authz.config_policy",
        "mcp_authz.config_telemetry",
        "mcp_authz.config_webhooks",
        "mcp_authz.webhook_settings",
        "mcp_authz.policy.loading",
        "mcp_authz.policy.on_disk",
        "mcp_authz.policy.unknown_actions",
        "mcp_authz.checkpoint_tail",
        "mcp_authz.installation",
        "mcp_authz.daily_pruning",
        "mcp_authz.process_records",
        "mcp_authz.observing",
        "mcp_authz.rehearsal",
        "mcp_authz.doctor",
        "mcp_authz.doctor.*",
        "mcp_authz.settings",
        "mcp_authz.vouching",
        "mcp_authz.downstreams",
        "mcp_authz.wiring",
        "mcp_authz.wrap",
        "mcp_authz.wrap.*",
        "mcp_authz.cli",
        "mcp_authz.cli.*",
    },
]

DOORS = {
    "nacl": {"mcp_authz.rules.keys"},
    "cryptography": {"mcp_authz.rules.es256", "mcp_authz.rules.rsa"},
    "re2": {"mcp_authz.rules.redaction"},
    "rfc8785": {"mcp_authz.rules.canonical"},
    "jsonschema": {"mcp_authz.rules.schema"},
    "referencing": {"mcp_authz.rules.schema"},
    "authlib": {"mcp_authz.oauth.*", "mcp_authz.web.provider"},
    "joserfc": {"mcp_authz.web.provider"},
    "sqlite_utils": {"mcp_authz.store.*"},
    "sqlite3": {"mcp_authz.store.*"},
    "mcp": {"mcp_authz.protocol.*", "mcp_authz.client.parameters", "tool_adapters.*"},
    "mcp_types": {"mcp_authz.protocol.*", "tool_adapters.*"},
    "cedarpy": {"mcp_authz.policy.*"},
    "regopy": {"mcp_authz.policy.rego_child"},
    "starlette": {
        "mcp_authz.protocol.*",
        "mcp_authz.oauth.*",
        "mcp_authz.web",
        "mcp_authz.web.*",
        "mcp_authz.cli.listening",
    },
    "webauthn": {"mcp_authz.web.passkeys"},
    "opentelemetry": {"mcp_authz.tracing"},
    "jinja2": {"mcp_authz.web.pages"},
    "uvicorn": {"mcp_authz.cli.listening"},
    "aiohttp": {"tool_adapters.direct", "mcp_authz.policy.remote"},
    "httpx2": {
        "mcp_authz.published_keys",
        "mcp_authz.fetching",
        "mcp_authz.posting",
        "mcp_authz.provider_fetching",
        "mcp_authz.web.provider_http",
        "tool_adapters.*",
        "mcp_authz.client.*",
        "mcp_authz.cli.token",
    },
    "typer": {"mcp_authz.cli.*"},
    "rich": {"mcp_authz.cli.*"},
    "desktop_notifier": {"mcp_authz.desktop"},
    "dbus_fast": {"mcp_authz.desktop"},
    "tomlkit": {"mcp_authz.config_file"},
    "pydantic_core": {"mcp_authz.rules.schema", "tool_adapters.direct"},
    "pydantic": {
        "mcp_authz.config",
        "mcp_authz.config_approval",
        "mcp_authz.config_obligations",
        "mcp_authz.config_people",
        "mcp_authz.config_policy",
        "mcp_authz.config_telemetry",
        "mcp_authz.config_webhooks",
        "tool_adapters.*",
    },
}

IMPURE = {"anyio", "asyncio", "logging", "os", "random", "secrets", "socket", "threading", "time", "subprocess"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            own = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if (ROOT / f"{name.replace('.', '/')}.py").exists() else node.module for name in own}
    return found


def fits(name: str, patterns: set[str]) -> bool:
    return name in patterns or any(p.endswith(".*") and name.startswith(p[:-1]) for p in patterns)


def layer(name: str) -> int:
    for number, patterns in enumerate(LAYERS):
        if name in patterns:
            return number
    for number, patterns in enumerate(LAYERS):
        if fits(name, patterns):
            return number
    raise AssertionError(f"{name} stands in no layer; say where it belongs")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_from_its_own_layer_and_below(path: Path) -> None:
    name = module_name(path)
    ours = {other for other in imports(path) if other.split(".")[0] in {"mcp_authz", "tool_adapters"}}
    above = sorted(other for other in ours if layer(other) > layer(name))
    assert not above, f"{name} imports from above: {above}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_library_is_used_behind_its_one_door(path: Path) -> None:
    name = module_name(path)
    outside = sorted(
        library
        for library in {other.split(".")[0] for other in imports(path)}
        if library in DOORS and not fits(name, DOORS[library])
    )
    assert not outside, f"{name} is no door to {outside}"


@pytest.mark.parametrize("path", [p for p in SOURCES if "rules" in p.parts], ids=module_name)
def test_rules_are_pure(path: Path) -> None:
    tree = ast.parse(path.read_text())
    impure = {other.split(".")[0] for other in imports(path)} & IMPURE
    clocks = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in {"now", "utcnow", "today"}]
    assert (
        not impure and not clocks and not any(isinstance(n, ast.AsyncFunctionDef | ast.Await) for n in ast.walk(tree))
    )


def test_adapters_know_only_vocabulary_rules_and_their_port() -> None:
    for path in ROOT.glob("tool_adapters/*.py"):
        ours = {other for other in imports(path) if other.startswith("mcp_authz")}
        assert all(layer(other) <= layer("mcp_authz.downstream") for other in ours), path


def test_only_step_14_makes_an_admitted_call() -> None:
    makers = [
        module_name(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Admitted"
    ]
    assert makers == ["mcp_authz.gateway"]
