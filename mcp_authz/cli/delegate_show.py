"""`mcp-authz delegate show`: a chain as a person reads it, and whether its signatures are what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer

from mcp_authz.cli.delegate_drawing import tree, view
from mcp_authz.cli.delegate_sources import AtHand, at_hand, gateway_keys, read_text
from mcp_authz.cli.invocation import asynchronous
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import draw, print_json, say
from mcp_authz.client.delegation import Description, describe
from mcp_authz.errors import DelegationError, SignatureRefused
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import PublicKey


@asynchronous
async def show(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The chain; `-` reads it from stdin.")],
    *,
    jwks: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="The gateway's public keys, such as https://GATEWAY/jwks.json."),
    ] = None,
    json: Json = False,
) -> None:
    """Draw a chain: for whom and why, who may do what, and whether its signatures verify."""
    here, now = at_hand(ctx), datetime.now(UTC)
    chain = await verified(ctx, here, read_text(file), file, jwks)
    names = _names(here, chain.issuer)
    if json:
        print_json(view(chain, names, now))
        return
    say(f"purpose: {visible(chain.purpose.purpose) or '(none given)'}")
    say(f"session {visible(chain.purpose.session)} of {visible(chain.issuer)}")
    draw(tree(chain, names, now))
    say(_judged(chain))
    ended = min(link.expires_at for link in chain.links) <= now
    if ended:
        say("it has ended, and is good for nothing any more")


async def verified(ctx: typer.Context, here: AtHand, text: str, name: str, jwks: str | None) -> Description:
    """Return what the chain says, its signatures verified as far as the gateway's keys are known.

    Raises:
        SignatureRefused, DelegationError: it does not hold; the message says where.
    """
    try:
        # Without its keys first: of which gateway it says that it is, decides which keys are asked for.
        chain = describe(text)
        keys: Mapping[str, PublicKey] | None = await gateway_keys(ctx, here, chain.issuer, jwks)
        return chain if keys is None else describe(text, keys)
    except (SignatureRefused, DelegationError) as error:
        raise type(error)(f"the chain in `{name}` does not hold, do not use it: {error}") from None


def _names(here: AtHand, issuer: str) -> Mapping[str, str]:
    store = here.of_gateway(issuer)
    return {} if store is None else {str(key.thumbprint): name for name, keys in store.keys.items() for key in keys}


def _judged(chain: Description) -> str:
    if chain.verified == "all":
        return "every signature verifies, and no link gives more than the one above it"
    between = "signatures between the links verify; the first one" if len(chain.links) > 1 else "its signature"
    return f"{between} was not checked: name the gateway's keys with --jwks {visible(chain.issuer)}/jwks.json"
