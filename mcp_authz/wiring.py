"""Everything tied together: configuration in, a gateway that serves out. The only place that knows every part."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Literal

import anyio

from mcp_authz import limits
from mcp_authz.agents import Agents
from mcp_authz.approvals import Approvals
from mcp_authz.audit import Evidence
from mcp_authz.canary import require_denials
from mcp_authz.catalog import Catalog
from mcp_authz.changing import bound_client_agents
from mcp_authz.clients import Clients
from mcp_authz.config import Config
from mcp_authz.context import Contexts
from mcp_authz.deciding import Deciding
from mcp_authz.delegating import Delegations
from mcp_authz.desktop import Desktop
from mcp_authz.downstream import Downstream
from mcp_authz.downstreams import make_downstream
from mcp_authz.errors import ConfigError, PolicyError, StoreError
from mcp_authz.evaluation import Evaluator
from mcp_authz.fetching import Fetcher
from mcp_authz.gateway import Gateway
from mcp_authz.holding import Holding
from mcp_authz.hop import PolicyAtHop
from mcp_authz.hosted import HostedAgents
from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.live_keys import LiveKeys
from mcp_authz.obligations import Notices, Obligations
from mcp_authz.offers import Offers
from mcp_authz.parts import Parts
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.live import LivePolicy
from mcp_authz.policy.loading import make_engine, read_files
from mcp_authz.policy.shadow import ABSENT, Shadow
from mcp_authz.policy.unknown_actions import unknown_actions
from mcp_authz.process_records import started
from mcp_authz.proving import Proving
from mcp_authz.recovering import recover
from mcp_authz.redeeming import Chains
from mcp_authz.rules.argument_values import short_values
from mcp_authz.rules.keys import Sealer, random_bytes
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.settings import (
    approval_floor,
    context_audiences,
    impersonations,
    least_proof,
    require_rules,
    server_rules,
)
from mcp_authz.standing_approvals import StandingApprovals
from mcp_authz.step_ups import StepUps
from mcp_authz.store.ports import Clock
from mcp_authz.underway import Underway
from mcp_authz.verdict_bundles import verdict_key
from mcp_authz.waits import Waits
from mcp_authz.webhook_settings import make_webhooks
from mcp_authz.webhooks import Webhooks, telling

log = logging.getLogger(__name__)

FIRST_LISTING = timedelta(seconds=20)  # how long a start waits for tool servers; slower ones join later


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A gateway with its parts, while it runs."""

    installation: Installation
    gateway: Gateway
    catalog: Catalog
    parts: Parts
    approvals: Approvals
    standing_approvals: StandingApprovals
    sessions: Sessions
    delegations: Delegations
    chains: Chains
    issuer_keys: IssuerKeys
    checkpoint_keys: LiveKeys
    agents: Agents
    hosted: HostedAgents
    clients: Clients
    policy: LivePolicy
    step_ups: StepUps  # the same that the road writes to, for the page where people agree
    desktop: Desktop | None  # who is told of held calls; None where nobody wants to be
    webhooks: Webhooks  # the same elsewhere
    unreachable: tuple[str, ...]  # servers that could not be listed at the start

    def policy_warnings(self) -> tuple[str, ...]:
        """A sentence for each policy about an action that no tool has, as far as tools are known now."""
        config = self.installation.config
        actions = {tool.classification.action for tool in self.catalog.everything}
        try:
            return tuple(unknown_actions(read_files(config, config.policy), actions))
        except (ConfigError, PolicyError):  # a file that changed since: what is wrong with it is said when it is loaded
            return ()

    async def follow_policy(self) -> None:
        """Policies are loaded whenever their files change, and the one in the shadow is asked; without end."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.policy.follow, self.parts.store, self.parts.clock, self.may_decide)
            if self.parts.shadow is not None:
                group.start_soon(self.parts.shadow.run)
                group.start_soon(self.parts.shadow.policy.follow, self.parts.store, self.parts.clock, _may_watch)

    async def may_decide(self, engine: PolicyEngine) -> None:
        """Nothing is true afterwards that was not before: the engine denies what no engine may permit.

        Raises:
            PolicyError: it does not.
        """
        evaluator = Evaluator(engine=engine, floor=self.parts.evaluator.floor, means=self.parts.evaluator.means)
        await require_denials(evaluator, self.parts.clock)

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
                try:
                    await self.catalog.refresh(self.parts.downstreams[name])
                except (ConfigError, StoreError) as error:  # of one server; the others go on, and so do its old tools
                    log.error("the tools of server `%s` changed, but stay as they were: %s", name, error)
            await tell()
            # A server that says without end that its tools changed must not fill the time, or with each change the log.
            await anyio.sleep(limits.LISTING_PAUSE.total_seconds())


@asynccontextmanager
async def run_gateway(config: Config, *, clock: Clock = utc_now) -> AsyncIterator[Running]:
    """The gateway is running: store open, policy loaded, tool servers started and listed, the canary denied.

    Raises:
        ConfigError, PolicyError, StoreError: one sentence that says what to do.
    """
    engine, floor = live_policy(config, "policy"), approval_floor(config)
    shadow = live_policy(config, "shadow_policy") if config.shadow_policy else None
    least = least_proof(config)
    rules = {name: server_rules(name, server, least) for name, server in config.servers.items()}
    require_rules(rules, floor)
    async with open_installation(config, clock=clock) as installation, AsyncExitStack() as stack:
        store = installation.store
        await bound_client_agents(store, clock, parse_scopes(config.clients.ceiling) or None)
        authority = await _authority(installation, engine)
        asking = await _asking(installation)
        parts = await _parts(
            installation,
            authority,
            asking,
            catalog=Catalog(store=store, rules=rules, clock=clock),
            evaluator=Evaluator(engine=engine, floor=floor, means=config.means),
            shadow=None if shadow is None else Shadow(shadow, store, clock),
        )
        stack.push_async_callback(engine.aclose)
        gateway = Gateway(parts, authority.sessions)
        parts.holding.as_task = gateway.tasks.create
        await store.append(started(installation, engine.digest))
        await recover(store, clock)
        await require_denials(parts.evaluator, clock)
        await parts.catalog.load_pins()
        for downstream in parts.downstreams.values():
            await stack.enter_async_context(downstream.run())
        unreachable = await _list_all(parts.catalog, tuple(parts.downstreams.values()))
        yield Running(
            installation=installation,
            gateway=gateway,
            catalog=parts.catalog,
            parts=parts,
            approvals=asking.approvals,
            standing_approvals=asking.standing,
            sessions=authority.sessions,
            delegations=authority.delegations,
            chains=authority.chains,
            issuer_keys=authority.issuer_keys,
            checkpoint_keys=await LiveKeys.load(store, "checkpoint", clock=clock),
            agents=Agents(store, clock),
            hosted=authority.hosted,
            clients=_clients(installation),
            policy=engine,
            step_ups=parts.step_ups,
            desktop=asking.desktop,
            webhooks=asking.webhooks,
            unreachable=unreachable,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authority:
    """How authority comes to agents, and is known again."""

    issuer_keys: IssuerKeys
    delegations: Delegations
    hosted: HostedAgents
    chains: Chains
    sessions: Sessions


async def _authority(installation: Installation, engine: LivePolicy) -> _Authority:
    config, store, clock = installation.config, installation.store, installation.clock
    issuer_keys = await IssuerKeys.load(store, clock=clock)
    delegations = Delegations(store=store, clock=clock, policy=PolicyAtHop(engine))
    hosted = HostedAgents(store, clock, Fetcher())
    chains = Chains(
        store=store,
        clock=clock,
        issuer=config.public_url,
        keys=issuer_keys,
        delegations=delegations,
        agent_keys=hosted.keys_of,
    )
    return _Authority(
        issuer_keys=issuer_keys,
        delegations=delegations,
        hosted=hosted,
        chains=chains,
        sessions=Sessions(store, clock, chains.signatures, impersonations=impersonations(config)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """How people are told of held calls, waited for and heard."""

    approvals: Approvals
    standing: StandingApprovals
    waits: Waits
    sealer: Sealer  # of what a client brings back with its retry
    desktop: Desktop | None
    webhooks: Webhooks


async def _asking(installation: Installation) -> _Asking:
    config, store, clock = installation.config, installation.store, installation.clock
    gateway_key = await verdict_key(store)
    approvals, waits = Approvals(store=store, clock=clock, gateway_key=gateway_key), Waits(store)
    told = config.notify == "desktop"
    return _Asking(
        approvals=approvals,
        standing=StandingApprovals(store=store, clock=clock, approvals=approvals, gateway_key=gateway_key),
        waits=waits,
        sealer=Sealer(await store.secret("state-key", lambda: random_bytes(32))),
        desktop=Desktop(store=store, clock=clock, public_url=config.public_url) if told else None,
        webhooks=Webhooks(make_webhooks(config), store=store, waits=waits, clock=clock, public_url=config.public_url),
    )


def _holding(installation: Installation, asking: _Asking) -> Holding:
    tell = (asking.webhooks.tell, *(() if asking.desktop is None else (asking.desktop.tell,)))
    return Holding(
        store=installation.store,
        approvals=asking.approvals,
        standing=asking.standing,
        waits=asking.waits,
        sealer=asking.sealer,
        clock=installation.clock,
        page=f"{installation.config.public_url}/holds",
        patience=installation.config.waiting.patience,
        on_held=telling(*tell),
    )


def _deciding(installation: Installation, asking: _Asking) -> Deciding:
    return Deciding(
        store=installation.store,
        approvals=asking.approvals,
        waits=asking.waits,
        sealer=asking.sealer,
        clock=installation.clock,
        page=f"{installation.config.public_url}/holds",
        patience=installation.config.waiting.patience,
    )


async def _parts(
    installation: Installation,
    authority: _Authority,
    asking: _Asking,
    *,
    catalog: Catalog,
    evaluator: Evaluator,
    shadow: Shadow | None,
) -> Parts:
    config, store, clock = installation.config, installation.store, installation.clock
    keys, approvals = authority.issuer_keys, asking.approvals
    downstreams = {name: make_downstream(name, server, config) for name, server in config.servers.items()}
    notices = Notices(asking.desktop.say if asking.desktop is not None else None)
    evidence_key = await store.secret("evidence-key", lambda: random_bytes(32))
    return Parts(
        store=store,
        catalog=catalog,
        evaluator=evaluator,
        obligations=Obligations(means=config.means, notices=notices),
        holding=_holding(installation, asking),
        approvals=approvals,
        page=f"{config.public_url}/holds",
        waits=asking.waits,
        underway=Underway(store, keys.live, authority.sessions.identify, approvals.stands, clock),
        deciding=_deciding(installation, asking),
        offers=Offers(catalog=catalog, downstreams=downstreams),
        proving=Proving(audience=config.resource, issuer=config.public_url, keys=keys.roots, clock=clock),
        downstreams=downstreams,
        contexts=await Contexts.load(store, issuer=config.public_url, audiences=context_audiences(config), clock=clock),
        elicitation={name: server.elicitation for name, server in config.servers.items()},
        step_ups=StepUps(clock),
        evidence=Evidence(evidence_key, values=short_values if config.audit.arguments == "redacted" else None),
        sealer=asking.sealer,
        clock=clock,
        keeps_inputs=config.audit.inputs_days > 0,
        shadow=shadow,
    )


def _clients(installation: Installation) -> Clients:
    config = installation.config.clients
    return Clients(
        installation.store,
        installation.clock,
        Fetcher(),
        schemes=config.schemes,
        dynamic=config.dynamic_registration,
    )


async def _may_watch(_: PolicyEngine) -> None:
    """Any policy may: what it says changes nothing."""


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


def live_policy(config: Config, key: Literal["policy", "shadow_policy"]) -> LivePolicy:
    """The policy of this key, as its files are at every moment.

    Raises:
        ConfigError, PolicyError: it cannot be loaded.
    """
    entries: tuple[str, ...] = getattr(config, key)
    return LivePolicy(
        key=key,
        absent=ABSENT if key == "shadow_policy" else None,  # a policy that decides nothing hinders nobody
        read=partial(read_files, config, entries, key=key),
        make=partial(make_engine, config, entries, key=key),
    )
