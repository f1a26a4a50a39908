"""`mcp-authz delegate`: one step of a chain, signed here with the delegator's key, without asking anybody."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from mcp_authz.cli import delegate_options as options
from mcp_authz.cli.delegate_ceilings import note_typed, require_under_ceilings
from mcp_authz.cli.delegate_drawing import shown_bounds, shown_tools
from mcp_authz.cli.delegate_show import show, verified
from mcp_authz.cli.delegate_sources import AtHand, at_hand, delegate_key, known_agent, private_key, read_text, schemas
from mcp_authz.cli.invocation import advising, asynchronous, command_line
from mcp_authz.cli.keyfile import public_key, written
from mcp_authz.cli.output import note, say
from mcp_authz.client.delegation import Description, delegate, describe
from mcp_authz.errors import (
    AuthzError,
    ConfigError,
    Conflict,
    ConstraintError,
    DelegationError,
    InputError,
    SignatureRefused,
)
from mcp_authz.principals import Agent
from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.where import ArgumentsUnknown, Properties, exact_tools_map, tools_map

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, no_args_is_help=True, add_completion=False)
app.command()(show)


@app.callback()
@asynchronous
async def make(
    ctx: typer.Context,
    *,
    to: options.To = None,
    tools: options.Tools = None,
    scope: options.Scope = None,
    where: options.Where = None,
    exactly: options.Exactly = False,
    lifetime: options.Lifetime = "1h",  # type: ignore[assignment]  # as it is written on the command line
    max_calls: options.MaxCalls = None,
    depth: options.Depth = 0,
    reason: options.Reason = "",
    delegator: options.Delegator = None,
    key: options.Key = None,
    chain: options.Chain = None,
    url: options.Url = None,
    session: options.Session = None,
    save_chain: options.SaveChain = None,
    child: options.Child = "",
    to_key: options.ToKey = None,
    schema: options.Schema = None,
    out: options.Out = None,
) -> None:
    """Give another agent some of what an agent has: sign one link, and print the chain with it.

    Nobody is asked but the key, if the chain and the delegate's key are at hand.
    """
    if ctx.invoked_subcommand is not None:
        return
    if not (to and not child) and not (child and to_key and not to):
        raise InputError("say who gets it: --to AGENT, or --child NAME with --to-key FILE")
    here = at_hand(ctx)
    _require_free(out, save_chain)
    text = None if chain is None else read_text(chain)
    if text is not None:
        await verified(ctx, here, text, str(chain), None)  # before anybody types a passphrase for it
    signer = private_key(here, delegator, key)
    if text is None:
        text = await _asked(ctx, delegator, signer, url, session)
        _save(save_chain, text)
    have = _own(text, signer)
    known = schemas(here, have.issuer, schema)
    given = _tools(known, have, _words(tools), where or [], exactly)
    made = delegate(
        text,
        signer,
        to=await _holder(here, have, to, to_key),
        child=child,
        scope=scope,
        tools=given,
        lifetime=lifetime,
        max_calls=max_calls,
        depth=depth,
        reason=reason,
    )
    giver = known_agent(here, signer.public, have.issuer)
    name = to or f"{giver.name if giver else delegator or 'AGENT'}/{child}"
    require_under_ceilings(ctx, here, describe(made), name)
    note_typed(here, have.issuer, scope)
    _warn(ctx, giver, name, [tool for tool in given or () if known and tool not in known])
    place = () if here.of_gateway(have.issuer) is not None else (have.issuer,)
    _deliver(made, name, out, command_line(ctx, "connect", *place, "--agent", name, "--chain", str(out or "FILE")))


def _warn(ctx: typer.Context, giver: Agent | None, to: str, unknown: Sequence[str]) -> None:
    """A person has read of what is at hand that this link will be of no use, or not of the use that was meant."""
    for tool in unknown:
        note(f"no tool `{visible(tool)}` is known; see: {command_line(ctx, 'tools', 'list')}")
    if giver is not None and not _may(giver, to):
        agents = command_line(ctx, "agent", "show", giver.name)
        note(f"{giver.name} may not delegate to {visible(to)}, so that the gateway will refuse this; see: {agents}")


def _may(giver: Agent, to: str) -> bool:
    return to in giver.delegates_to or to.startswith(f"{giver.name}/")


def _words(tools: Sequence[str] | None) -> list[str] | None:
    """The tools that were named, each in an option of its own or several in one."""
    return None if tools is None else [name for text in tools for name in text.replace(",", " ").split()]


def _own(text: str, signer: PrivateKey) -> Description:
    have = describe(text)
    if have.leaf.holder != signer.public:
        raise DelegationError("the chain was given to another key than this one; say whose it is with --as or --key")
    return have


async def _asked(ctx: typer.Context, agent: str | None, key: PrivateKey, url: str | None, session: str | None) -> str:
    """The chain of who delegates, as the gateway gives it."""
    from mcp_authz.cli.delegate_chain import own_chain  # with an HTTP client, which nobody needs who has the chain

    if agent is None:
        raise ConfigError("say who delegates with --as AGENT, so that the gateway can be asked for the chain")
    return await own_chain(ctx, agent, key, url=url, session=session)


async def _holder(here: AtHand, have: Description, to: str | None, named: str | None) -> PublicKey:
    """The key of who gets it."""
    from mcp_authz.client.published import is_url, published_keys

    if named is not None and is_url(named):
        return list((await published_keys(named)).values())[-1]
    if named is not None:
        return public_key(named)
    with advising(AuthzError, "or give its public key with --to-key FILE"):
        return await delegate_key(here, str(to), have.issuer)


def _tools(
    known: Mapping[str, Properties], have: Description, tools: list[str] | None, where: list[str], exactly: bool
) -> ToolsMap | None:
    """What of the delegator's tools is given; None: all of them, as the delegator has them."""
    had = have.leaf.tools
    if tools is None and not where:
        return None
    chosen = list(had or ()) if tools is None else tools
    if not chosen:
        raise ConstraintError("say which tools with --tools; a condition is about their arguments")
    if exactly:
        return exact_tools_map(chosen, where, known, had=had)
    with advising(ArgumentsUnknown, "name a file with its definition: --schema FILE; or allow no others: --exactly"):
        return tools_map(chosen, where, known, had=had)


def _require_free(*paths: Path | None) -> None:
    """Nothing is overwritten but a chain, which is there to be replaced."""
    for path in paths:
        if path is not None and os.path.lexists(path):
            try:
                describe(read_text(str(path)))
            except (SignatureRefused, DelegationError):
                raise Conflict(f"`{path}` exists already, and is no chain; name another file") from None


def _save(path: Path | None, text: str) -> None:
    if path is not None:
        path.unlink(missing_ok=True)
        with written(path, text):
            pass


def _deliver(made: str, to: str, out: Path | None, after: str) -> None:
    """The chain is where it was wanted, and a person has read what it gives and what to do with it."""
    leaf = describe(made).leaf
    lines = [
        f"{visible(to)} gets: {' '.join(sorted(leaf.scope))}",
        *(f"  {line}" for line in shown_tools(leaf)),
        f"  {shown_bounds(leaf, datetime.now(UTC))}",
        *([f"  because: {visible(leaf.reason)}"] if leaf.reason else []),
    ]
    lines.append(f"next: {after}")
    _save(out, made)
    if out is None:
        say(made.rstrip("\n"))
    (sys.stderr if out is None else sys.stdout).write("".join(f"{line}\n" for line in lines))
