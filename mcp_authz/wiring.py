"""Everything tied together: configuration in, a gateway that serves out. The only place that knows every part."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

import anyio

from mcp_authz.agents import Agents
from mcp_authz.approvals import Approvals
from mcp_authz.audit import Evidence
from mcp_authz.canary import require_denials
from mcp_authz.catalog import Catalog
from mcp_authz.config import ApprovalConfig, Config, ServerConfig, ToolConfig, read_secret_file
from mcp_authz.downstream import Downstream
from mcp_authz.errors import ConfigError, ScopeError
from mcp_authz.evaluation import Evaluator
from mcp_authz.gateway import Gateway
from mcp_authz.holding import Holding
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.model import ApprovalRule, Assurance, Classification, Hazard, HeldCall, Proof
from mcp_authz.offers import Offers
from mcp_authz.parts import Parts
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.rules.attributes import parse_template
from mcp_authz.rules.canonical import digest_b64url
from mcp_authz.rules.classify import Classified, ServerRules
from mcp_authz.rules.decision import ApprovalFloor
from mcp_authz.rules.keys import PrivateKey, Sealer, random_bytes
from mcp_authz.rules.scope import ScopeTemplate
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Clock, Event
from tool_adapters.http import HttpDownstream
from tool_adapters.presets import load_preset
from tool_adapters.stdio import StdioDownstream

log = logging.getLogger(__name__)

FIRST_LISTING = timedelta(seconds=20)  # how long a start waits for tool servers; slower ones join later
BUILTIN = "builtin:"
RESERVED_ATTRIBUTES = frozenset({"server", "tool", "environment", "hazard"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A gateway with its parts, while it runs."""

    installation: Installation
    gateway: Gateway
    catalog: Catalog
    parts: Parts
    approvals: Approvals
    sessions: Sessions
    agents: Agents
    unreachable: tuple[str, ...]  # servers that could not be listed at the start

    async def follow_changes(self, tell: Callable[[], Awaitable[None]]) -> None:
        """List a server again whenever its tools changed or it is back, and `tell` whoever listens; without end."""
        changed: set[str] = set(self.unreachable)
        wake = anyio.Event()
        if changed:
            wake.set()

        def note(name: str) -> None:
            changed.add(name)
            wake.set()

        for name, downstream in self.parts.downstreams.items():
            downstream.on_tools_changed(partial(note, name))
        while True:
            await wake.wait()
            wake = anyio.Event()
            names, changed = changed, set()
            for name in sorted(names):
                await self.catalog.refresh(self.parts.downstreams[name])
            await tell()


@asynccontextmanager
async def run_gateway(config: Config, *, clock: Clock = utc_now) -> AsyncIterator[Running]:
    """The gateway is running: store open, policy loaded, tool servers started and listed, the canary denied.

    Raises:
        ConfigError, PolicyError, StoreError: one sentence that says what to do.
    """
    engine, floor = load_policy(config), approval_floor(config)
    rules = {name: server_rules(name, server) for name, server in config.servers.items()}
    require_rules(rules, floor)
    async with open_installation(config, clock=clock) as installation, AsyncExitStack() as stack:
        store = installation.store
        sessions, agents = Sessions(store, clock), Agents(store, clock)
        gateway_key = PrivateKey.from_seed(await store.secret("verdict-key", lambda: random_bytes(32)))
        approvals = Approvals(store=store, clock=clock, gateway_key=gateway_key)
        state_sealer = Sealer(await store.secret("state-key", lambda: random_bytes(32)))
        catalog = Catalog(store=store, rules=rules, clock=clock)
        downstreams = {name: make_downstream(name, server, config) for name, server in config.servers.items()}
        parts = Parts(
            store=store,
            catalog=catalog,
            evaluator=Evaluator(engine=engine, floor=floor),
            holding=Holding(store=store, approvals=approvals, sealer=state_sealer, clock=clock),
            offers=Offers(catalog=catalog, downstreams=downstreams),
            downstreams=downstreams,
            elicitation={name: server.elicitation for name, server in config.servers.items()},
            evidence=Evidence(await store.secret("evidence-key", lambda: random_bytes(32))),
            sealer=state_sealer,
            clock=clock,
        )
        gateway = Gateway(parts)
        await store.append(_started(config, engine, clock))
        await store.recover(lambda held: _interrupted(held, clock))
        await require_denials(parts.evaluator, clock)
        await catalog.load_pins()
        for downstream in downstreams.values():
            await stack.enter_async_context(downstream.run())
        unreachable = await _list_all(catalog, tuple(downstreams.values()))
        yield Running(
            installation=installation,
            gateway=gateway,
            catalog=catalog,
            parts=parts,
            approvals=approvals,
            sessions=sessions,
            agents=agents,
            unreachable=unreachable,
        )


async def _list_all(catalog: Catalog, downstreams: tuple[Downstream, ...]) -> tuple[str, ...]:
    """Every server is listed, those that can be reached in time; returns the names of the others."""
    reached: set[str] = set()

    async def one(downstream: Downstream) -> None:
        if await catalog.refresh(downstream):
            reached.add(downstream.name)

    with anyio.move_on_after(FIRST_LISTING.total_seconds()):
        async with anyio.create_task_group() as group:
            for downstream in downstreams:
                group.start_soon(one, downstream)
    return tuple(d.name for d in downstreams if d.name not in reached)


def load_policy(config: Config) -> CedarEngine:
    """The policy engine over the configured files; `builtin:NAME` is a policy that comes with the gateway.

    Raises:
        ConfigError: a file is missing.
        PolicyError: a policy is not sound.
    """
    sources = {}
    for entry in config.policy:
        path = (
            policies_dir() / f"{entry.removeprefix(BUILTIN)}.cedar"
            if entry.startswith(BUILTIN)
            else (config.directory / entry)
        )
        try:
            sources[entry] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            known = ", ".join(sorted(f"{BUILTIN}{p.stem}" for p in policies_dir().glob("*.cedar")))
            raise ConfigError(f"`policy`: `{entry}` cannot be read; give a file, or one of: {known}") from None
    return CedarEngine.load(sources)


def policies_dir() -> Path:
    """Where the policies that come with the gateway are: inside the package when installed, beside it in a checkout."""
    packaged = Path(__file__).parent / "_policies"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "policies"


def approval_floor(config: Config) -> ApprovalFloor:
    """The approval rules, and which hazards demand one: `destructive` always, `read` and `write` where they are set."""
    configured = {"destructive": ApprovalConfig(), **config.approval}
    rules = {name: _approval_rule(name, rule) for name, rule in configured.items()}
    return ApprovalFloor(rules=rules, by_hazard={h: h.value for h in Hazard if h.value in rules})


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


def server_rules(name: str, server: ServerConfig) -> ServerRules:
    """What the configuration and its preset say of one server's tools.

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
    )


def _classification(server: str, tool: str, entry: ToolConfig) -> Classification:
    try:
        scopes = tuple(ScopeTemplate.parse(scope) for scope in entry.scopes or (f"{server}:{tool}",))
    except ScopeError as error:
        raise ConfigError(f"`servers.{server}.tools.{tool}.scopes`: {error}") from None
    if reserved := sorted(RESERVED_ATTRIBUTES & entry.resource.keys()):
        raise ConfigError(
            f"`servers.{server}.tools.{tool}.resource`: `{reserved[0]}` is the gateway's; name it otherwise"
        )
    for template in entry.resource.values():
        parse_template(template)
    return Classification(
        action=entry.action or f"{server}.{tool}",
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
                by=f"preset:{name}",
            ),
            digests=tool.definitions,
        )
        for tool in preset.tools.values()
    }


def require_rules(rules: Mapping[str, ServerRules], floor: ApprovalFloor) -> None:
    """Every approval rule that a tool names exists.

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


def make_downstream(name: str, server: ServerConfig, config: Config) -> Downstream:
    """The adapter of one configured server, its secrets read from their files.

    Raises:
        ConfigError: a program or a secret file that is not there.
    """
    timeout = timedelta(seconds=server.call_timeout)
    if server.url is not None:
        headers = {**server.headers, **{h: read_secret_file(config, f) for h, f in server.header_files.items()}}
        return HttpDownstream(name, server.url, headers, call_timeout=timeout)
    assert server.command is not None  # noqa: S101 - the configuration has one of the two
    env = {**server.env, **{n: read_secret_file(config, f) for n, f in server.env_files.items()}}
    cwd = config.directory / server.cwd if server.cwd else config.directory
    command = (_program(name, server.command[0], cwd), *server.command[1:])
    return StdioDownstream(name, command, env, cwd, call_timeout=timeout)


def _program(server: str, program: str, cwd: Path) -> str:
    """The absolute path of a server's program: as written, beside this Python, or on the gateway's PATH."""
    if "/" in program:
        found = shutil.which(str(cwd / program))
    else:
        found = shutil.which(
            program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        )
    if found is None:
        raise ConfigError(f"`servers.{server}.command`: program `{program}` is not installed or not executable")
    return found


def _started(config: Config, engine: CedarEngine, clock: Clock) -> Event:
    settings = digest_b64url(config.model_dump(mode="json"))
    fields = {
        "policy": engine.digest,
        "settings": settings,
        "version": version("mcp-authz"),
        "summary": f"gateway started at {config.public_url} with policy {', '.join(config.policy)}",
    }
    return Event(kind="configuration", at=clock(), fields=fields)


def _interrupted(held: HeldCall, clock: Clock) -> Event:
    fields = {
        "outcome": "unknown",
        "actor": f"agent:{held.actor}",
        "tool": held.tool,
        "hold": held.id,
        "summary": "the gateway stopped while this call ran; nobody can say whether it ran, it is not run again",
    }
    return Event(kind="outcome", at=clock(), call=held.id, fields=fields)
