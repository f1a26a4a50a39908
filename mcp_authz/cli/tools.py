"""`mcp-authz tools`: what the gateway takes each tool for, and changed definitions that wait to be accepted."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from mcp_authz import views
from mcp_authz.catalog import Catalog
from mcp_authz.cli import elsewhere_commands
from mcp_authz.cli.invocation import asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import draw, next_step, print_json, say, table
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.installation import Installation
from mcp_authz.naming import pin_called
from mcp_authz.overview import warned
from mcp_authz.principals import Proof
from mcp_authz.rules.definition import definition_lines
from mcp_authz.rules.display import visible
from mcp_authz.stopping import Stopping
from mcp_authz.store.ports import Event

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

ToolText = Annotated[str, typer.Argument(metavar="TOOL", help="Such as files__read_file.")]

_NO_PROOF: Final = Proof.BEARER.name.lower()


@app.callback()
def group() -> None:
    """Tools: what they are taken for, and changes to accept."""


@app.command("list")
@asynchronous
async def list_(
    ctx: typer.Context,
    server: Annotated[str | None, typer.Option(metavar="NAME", help="Only the tools of this server.")] = None,
    json: Json = False,
) -> None:
    """List every tool that was ever listed by a configured server."""
    from mcp_authz.settings import (
        least_proof,
        server_rules,
    )  # with everything that a gateway needs: the other commands go without

    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.listed(there, "tools", partial(_say_tools, server=server, json=json))
        return
    async with installation(ctx) as here:
        least = least_proof(here.config)
        rules = {name: server_rules(name, configured, least) for name, configured in here.config.servers.items()}
        catalog = Catalog(store=here.store, rules=rules, clock=here.clock)
        await catalog.load_pins()
        found = await warned(catalog)
    if server is not None and server not in rules:
        raise NotFound(f"there is no server `{server}`; there are: {', '.join(sorted(rules)) or 'none'}")
    _say_tools([views.tool(it.tool, it.warnings) for it in found], server=server, json=json)


def _say_tools(every: list[dict[str, Any]], *, server: str | None, json: bool) -> None:
    tools = [it for it in every if server in {None, it["server"]}]
    if json:
        print_json(tools)
        return
    is_warned = any(it["warnings"] for it in tools)
    proved = any(it["proof"] != _NO_PROOF for it in tools)
    more = (*(("PROOF",) if proved else ()), *(("WARNING",) if is_warned else ()))
    table(
        ("TOOL", "SERVER", "HAZARD", "ACTION", "SCOPES", "CLASSIFIED BY", "STATE", *more),
        (
            (
                it["name"],
                it["server"],
                it["hazard"],
                it["action"],
                " ".join(it["scopes"]),
                it["classified_by"],
                _state(it),
                *((it["proof"],) if proved else ()),
                *(("; ".join(it["warnings"]),) if is_warned else ()),
            )
            for it in tools
        ),
        empty="no tools yet: the gateway learns them from its servers when it runs (`mcp-authz serve`)"
        if not every
        else f"no tools of server `{server}` are known; `mcp-authz tools list` has those of all",
    )


@app.command()
@asynchronous
async def diff(ctx: typer.Context, tool: ToolText, json: Json = False) -> None:
    """Show what changed in a tool's definition since it was accepted."""
    async with installation(ctx) as here:
        pin = await pin_called(here.store, tool)
        off = [switch for switch in await here.store.switched_off() if not switch.is_everything]
    if json:
        waiting = pin.changed_digest and {"digest": pin.changed_digest.hex(), "definition": pin.changed}
        pinned = {"digest": pin.digest.hex(), "definition": pin.definition}
        print_json({"name": tool, "server": pin.server, "tool": pin.tool, "pinned": pinned, "waiting": waiting})
        return
    if pin.changed is None or pin.changed_digest is None:
        say(f"tool {tool} is as it was accepted: definition {pin.digest.hex()}")
        if any(it.is_for(pin.server, pin.tool) for it in off):
            say("it is switched off: nobody can call it until it is accepted again")
            next_step(command_line(ctx, "tools", "accept", tool, "--expect", pin.digest.hex()))
        return
    before, after = (definition_lines(definition) for definition in (pin.definition, pin.changed))
    for line in difflib.unified_diff(before, after, "accepted", "listed now", n=3, lineterm=""):
        draw(Text(visible(line), style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")))
    say()
    say(f"tool {tool} is in quarantine: nobody can call it until this definition is accepted, or the old one is back")
    next_step(command_line(ctx, "tools", "accept", tool, "--expect", pin.changed_digest.hex()))


@app.command()
@asynchronous
async def accept(
    ctx: typer.Context,
    tool: Annotated[str | None, typer.Argument(metavar="[TOOL]", help="Such as files__read_file.")] = None,
    *,
    expect: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="The definition you read, as `tools diff` names it.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of a tool: a server that was switched off.")
    ] = None,
) -> None:
    """Accept the definition of a tool that changed or was switched off, if it is still the one you read."""
    if server is not None:
        if tool is not None or expect is not None:
            raise typer.BadParameter("name a tool with its digest, or a server, not both")
        async with installation(ctx) as here:
            await Stopping(here.store, here.clock).server_on(server, by=operator())
        say(f"server {server} is switched on again; tools that were switched off by themselves stay off")
        next_step(command_line(ctx, "tools", "list", "--server", server))
        return
    if tool is None or expect is None:
        raise typer.BadParameter("name a tool and, with --expect, the definition you read; `tools diff` prints it")
    async with installation(ctx) as here:
        await _accept(here, tool, _digest(expect))
    say(f"tool {tool} is out of quarantine; a running gateway offers it again at the next call")
    next_step(command_line(ctx, "tools", "list"))


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter("a digest is 64 hexadecimal digits, as `tools diff` prints them") from None


async def _accept(here: Installation, tool: str, expect: bytes) -> None:
    """The tool can be called again with the definition that was read.

    Raises:
        Conflict: it can be called already, another definition waits, or its whole server is switched off.
    """
    pin = await pin_called(here.store, tool)
    off = any(it.is_for(pin.server, pin.tool) for it in await here.store.switched_off() if not it.is_everything)
    if pin.changed_digest is None and not off:
        raise Conflict(f"tool `{tool}` is not in quarantine; there is nothing to accept")
    if pin.changed_digest is None and expect != pin.digest:
        raise Conflict(f"the definition of `{tool}` is another one; `mcp-authz tools diff {tool}` shows it")
    if pin.changed_digest is not None:
        fields = {
            "summary": f"definition of {tool} accepted",
            "by": operator(),
            "server": pin.server,
            "tool": pin.tool,
            "pinned": pin.digest.hex(),
            "listed": expect.hex(),
            "outcome": "accepted",
        }
        await here.store.accept(pin.server, pin.tool, expect, Event(kind="pin", at=here.clock(), fields=fields))
    if off:
        await Stopping(here.store, here.clock).tool_on(pin, tool, by=operator())


@app.command()
def review(
    ctx: typer.Context,
    server: Annotated[
        str | None,
        typer.Argument(metavar="[SERVER]", help="Only this server. Else every one of the configuration."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also the tools that are classified already.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: take what presets say, the rest stays destructive.")
    ] = False,
    trust_annotations: Annotated[
        bool, typer.Option("--trust-annotations", help="With --yes: also take what servers say of their own tools.")
    ] = False,
    json: Json = False,
) -> None:
    """Start the servers once, and say what each tool is that nothing classifies."""
    from mcp_authz.cli.tools_review import review as run  # with all that starts servers: the others go without

    run(ctx, server, everything=everything, yes=yes, believe=not yes or trust_annotations, json=json)


def _state(tool: dict[str, Any]) -> str:
    if tool["quarantined"]:
        return "switched off" if tool["off"] else "quarantined"
    return "observed" if tool["observed"] else "pinned"
