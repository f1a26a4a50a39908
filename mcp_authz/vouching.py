"""What `[enterprise]` means: whose assertions count, in whose hands, and what is fetched for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from mcp_authz.authorization import RegisteredClient
from mcp_authz.clients import Clients
from mcp_authz.config import Config
from mcp_authz.config_people import EnterpriseConfig
from mcp_authz.enterprise import Enterprise, Trust, Trusted
from mcp_authz.model import Tool
from mcp_authz.oauth.software import Known
from mcp_authz.people_elsewhere import Provider
from mcp_authz.principals import ClientId
from mcp_authz.provider_fetching import keys_of
from mcp_authz.provider_keys import ProviderKeys
from mcp_authz.rules.consent import everything
from mcp_authz.rules.scope import Scope, parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Clock, Store


def make_enterprise(
    config: Config,
    *,
    store: Store,
    clock: Clock,
    sessions: Sessions,
    clients: Clients,
    tools: Callable[[], Iterable[Tool]],
) -> Enterprise | None:
    """Return what takes the assertions of the configured provider; None where none is configured."""
    if config.enterprise is None:
        return None
    ceiling = parse_scopes(config.clients.ceiling)

    def current_ceiling() -> frozenset[Scope]:
        return ceiling or everything(tools())

    return Enterprise(
        store=store,
        clock=clock,
        sessions=sessions,
        keys=ProviderKeys(keys_of(config.enterprise.issuer, config.enterprise.jwks_uri), clock),
        trust=trust_of(config.enterprise),
        audience=config.public_url,
        resource=config.resource,
        ceiling=current_ceiling,
        keep=clients.keep,
    )


def known_by(config: Config, clients: Clients) -> Known:
    """Return what knows the clients of the token endpoint.

    The document of a client that the operator named is read before anybody agreed to it; a stranger's is not.
    """
    named = frozenset() if config.enterprise is None else frozenset(config.enterprise.clients)

    async def known(client: ClientId) -> RegisteredClient:
        return await (clients.known if client in named else clients.kept)(client)

    return known


def trust_of(config: EnterpriseConfig) -> Trust:
    """Return whose word counts for whom, as the operator says it."""
    provider = Provider(
        issuer=config.issuer,
        client_id="",  # nobody is sent there from here
        name=urlsplit(config.issuer).netloc,
        person_claim=config.person_claim,
        email_domain=config.email_domain,
        groups_claim=config.groups_claim,
        groups=config.groups,
        allowed_groups=frozenset(config.allowed_groups),
        provision=config.provision,
    )
    clients = {
        ClientId(name): Trusted(scope=parse_scopes(client.scopes), known_as=client.client_id or name)
        for name, client in config.clients.items()
    }
    return Trust(provider=provider, tenant=config.tenant, clients=clients)
