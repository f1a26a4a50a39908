"""`mcp-authz serve`: the gateway on its port until it is told to stop."""

from __future__ import annotations

import gc
import logging
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final

import anyio

from mcp_authz.administration import Administration
from mcp_authz.audit_proofs import Proofs
from mcp_authz.cli.checkpointing import checkpointing
from mcp_authz.cli.listening import Server, Stop, Use, listening
from mcp_authz.cli.places import beside, listeners, the_only_one
from mcp_authz.cli.telling import Telling
from mcp_authz.config import Config
from mcp_authz.consent import Consents, Terms
from mcp_authz.errors import StoreError
from mcp_authz.identity import Identifier
from mcp_authz.installation import utc_now
from mcp_authz.live_keys import follow
from mcp_authz.oauth.server import OAuthServer, oauth_routes
from mcp_authz.observing import keep_telling, loud_line, observed_servers
from mcp_authz.overview import Overview
from mcp_authz.process_records import Leaving
from mcp_authz.protocol.administration import AdministrationApi
from mcp_authz.protocol.app import App
from mcp_authz.protocol.context_keys import approval_keys_route, checkpoint_keys_route, context_keys_route
from mcp_authz.protocol.throttle import Refusals
from mcp_authz.protocol.webhook_verdicts import Verdicts
from mcp_authz.recovering import keep_recovering
from mcp_authz.rules.decision import required_rules
from mcp_authz.rules.dpop import Nonces
from mcp_authz.rules.keys import random_bytes
from mcp_authz.rules.peer import read_networks
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.settings import approval_floor, roles_of_people, ways_in
from mcp_authz.shredding import keep_shredding
from mcp_authz.store.ports import Clock
from mcp_authz.verdict_bundles import approval_keys, verdict_key
from mcp_authz.vouching import known_by, make_enterprise
from mcp_authz.web import PageRoute
from mcp_authz.wiring import Running, run_gateway

log = logging.getLogger(__name__)

_COLLECTED: Final = 10_000  # objects more than there were, until cycles are looked for among them


@asynccontextmanager
async def open_app(config: Config, *, clock: Clock = utc_now) -> AsyncIterator[tuple[App, Running]]:
    """The application over a running gateway; list changes of its tool servers reach those who listen."""
    async with run_gateway(config, clock=clock) as running:
        telling = Telling(config, running.installation.store)
        app = await _app(running, telling)
        async with anyio.create_task_group() as group:
            for goes_on in _beside_calls(running, app, telling):
                group.start_soon(goes_on)
            yield app, running
            group.cancel_scope.cancel()


def _beside_calls(running: Running, app: App, telling: Telling) -> Iterator[Callable[[], Coroutine[Any, Any, None]]]:
    """Everything that goes on as long as the gateway runs, whether anybody calls or not."""
    config, store, clock = running.installation.config, running.installation.store, running.installation.clock
    parts = running.parts
    yield partial(running.follow_changes, app.front.tools_changed)
    yield running.follow_policy
    yield parts.waits.run
    yield partial(parts.underway.run, partial(_tell_of_changes, running, app))
    yield partial(keep_recovering, store, clock, parts.holding.give_up_unanswered)
    yield partial(keep_shredding, store)
    yield partial(keep_telling, config)
    yield telling.run
    yield partial(follow, store, running.issuer_keys.live, parts.contexts.keys, running.checkpoint_keys)
    if running.desktop is not None:
        yield running.desktop.run
    yield running.webhooks.run


async def _app(running: Running, telling: Telling) -> App:
    config, store, clock = running.installation.config, running.installation.store, running.installation.clock
    refusals = Refusals()
    nonces = Nonces(key=await store.secret("dpop-nonce-key", lambda: random_bytes(32)), demanded=config.dpop_nonce)
    identifier = Identifier(
        keys=running.issuer_keys.public,
        issuer=config.public_url,
        resource=config.resource,
        sessions=running.sessions,
        clock=clock,
        nonces=nonces,
    )
    verdicts = Verdicts(running.webhooks.all, store=store, approvals=running.approvals, clock=clock, refusals=refusals)
    verdict_keys = approval_keys((await verdict_key(store)).public)
    api, page = _administration(running, identifier, refusals)
    return App(
        gateway=running.gateway,
        identifier=identifier,
        store=store,
        clock=clock,
        public_url=config.public_url,
        proxies=read_networks(config.audit.proxies),
        routes=[
            *oauth_routes(_oauth(running, nonces, refusals)),
            *telling.routes,
            context_keys_route(lambda: running.parts.contexts.jwks),
            approval_keys_route(lambda: verdict_keys),
            checkpoint_keys_route(lambda: running.checkpoint_keys.jwks),
            *verdicts.routes,
            *api.routes,
            page,
        ],
        refusals=refusals,
    )


def _oauth(running: Running, nonces: Nonces, refusals: Refusals) -> OAuthServer:
    config, store, clock = running.installation.config, running.installation.store, running.installation.clock
    return OAuthServer(
        store=store,
        sessions=running.sessions,
        delegations=running.delegations,
        chains=running.chains,
        issuer=config.public_url,
        resource=config.resource,
        signing=running.issuer_keys,
        clock=clock,
        count_refusal=refusals.count,
        nonces=nonces,
        hosted=running.hosted,
        step_ups=running.step_ups,
        clients=running.clients,
        known=known_by(config, running.clients),
        enterprise=make_enterprise(
            config,
            store=store,
            clock=clock,
            sessions=running.sessions,
            clients=running.clients,
            tools=lambda: running.catalog.everything,
        ),
    )


def _administration(
    running: Running, identifier: Identifier, refusals: Refusals
) -> tuple[AdministrationApi, PageRoute]:
    """The API and the page: two ways to the same things, which one table governs."""
    config, store, clock = running.installation.config, running.installation.store, running.installation.clock
    administration = Administration(store, clock, servers=config.servers)
    overview = Overview(administration, store, clock, running.catalog)
    api = AdministrationApi(
        administration=administration,
        overview=overview,
        proofs=Proofs(administration, store, clock, gateway=config.public_url),
        roles=roles_of_people(config),
        identifier=identifier,
        remember=store.remember,
        public_url=config.public_url,
        refusals=refusals,
        clock=clock,
    )
    page = PageRoute(
        administration=administration,
        overview=overview,
        store=store,
        approvals=running.approvals,
        standing=running.standing_approvals,
        consents=_consents(running),
        public_url=config.public_url,
        clock=clock,
        ways_in=ways_in(config),
        roles=roles_of_people(config),
        catalog=running.catalog,
    )
    return api, page


async def _tell_of_changes(running: Running, app: App) -> None:
    """Whoever listens is told that their lists may have changed, and lists them as they are now."""
    try:
        await running.catalog.look()
    except StoreError as error:
        log.error("which tools are switched off cannot be read: %s", error)
    await app.front.lists_changed()


async def serve(config: Config, *, idle: timedelta | None = None, port_beside: int | None = None) -> None:
    """The gateway answers at its public URL and on its Unix socket; returns when it is told to stop, or `idle` so long.

    With `port_beside` it answers there alone, as one more process of the gateway that has the data directory.

    Raises:
        ConfigError: a gateway runs here already, or port or socket cannot be had.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # keys would be in it
    with ExitStack() as places:  # had before any tool server is started in vain
        sockets = _places(places, config, idle, port_beside)
        async with anyio.create_task_group() as group:
            stop = Stop(group.cancel_scope)
            await group.start(stop.when_told)
            async with open_app(config) as (app, running):
                use = Use(app.asgi)
                server = Server(listening(use, timeout_graceful_shutdown=5))
                _say_hello(config, running)
                if port_beside is not None:
                    print(f"  one more process of it, on port {port_beside}", flush=True)
                gc.collect()
                gc.freeze()  # what was loaded lives as long as the process; no collection has to look at it again
                gc.set_threshold(_COLLECTED)  # calls leave hardly a cycle behind: looking for one finds calls that run
                leaving = Leaving(running.installation, lambda: running.parts.underway.calls)
                stop.asks(server, before=partial(_leave, running, leaving))
                if idle is not None:
                    group.start_soon(use.tell_when_unused, idle, stop)
                async with checkpointing(running):
                    await server.serve(sockets)
                    await leaving.record()  # so that the last checkpoint has it
            group.cancel_scope.cancel()


def _leave(running: Running, leaving: Leaving) -> None:
    """Who waits for a person is told to come back, and what runs is counted."""
    running.parts.waits.leave()
    leaving.begins()


def _places(places: ExitStack, config: Config, idle: timedelta | None, port: int | None) -> list[socket.socket]:
    if port is not None:
        return places.enter_context(beside(config, port))
    places.enter_context(the_only_one(config, unattended=idle is not None))
    return places.enter_context(listeners(config))


def _consents(running: Running) -> Consents:
    config = running.installation.config
    floor = approval_floor(config)
    terms = Terms(
        ceiling=parse_scopes(config.clients.ceiling) or None,
        words=config.scopes,
        lifetime=timedelta(days=config.clients.grant_days),
        is_held=lambda tool: bool(required_rules(tool, (), floor)),
        has=running.parts.offers.has,
    )
    return Consents(
        store=running.installation.store,
        clock=running.installation.clock,
        clients=running.clients,
        tools=lambda: running.catalog.everything,
        terms=terms,
        step_ups=running.step_ups,
        issuer=config.public_url,
        resource=config.resource,
    )


def _say_hello(config: Config, running: Running) -> None:
    tools = running.catalog.tools
    servers = len({tool.server for tool in tools})
    quarantined = sum(tool.quarantined for tool in tools)
    print(f"mcp-authz gateway at {config.resource}", flush=True)
    print(f"  {len(tools)} tools of {servers} servers" + (f", {quarantined} in quarantine" if quarantined else ""))
    if warned := len(running.catalog.warnings()):
        print(f"  {warned} {'tool carries' if warned == 1 else 'tools carry'} warnings: mcp-authz tools list")
    for warning in running.policy_warnings():
        print(f"  {warning}", file=sys.stderr)
    for name in observed_servers(config):
        print(f"  {loud_line(config, name)}", file=sys.stderr)
    for name in running.unreachable:
        print(f"  tool server `{name}` cannot be reached yet; it is tried again", file=sys.stderr)
    print("  stop with Ctrl-C", flush=True)
