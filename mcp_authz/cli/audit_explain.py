"""`mcp-authz audit explain`: one call's story, and the excerpt of the log that shows it elsewhere."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz import views
from mcp_authz.audit_bundles import bundle_of
from mcp_authz.audit_excerpts import records_of
from mcp_authz.audit_story import story
from mcp_authz.checkpoints import checkpoint_keys
from mcp_authz.cli import elsewhere_log
from mcp_authz.cli.invocation import asynchronous, command_line, installation, named_gateway
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import local, next_step, print_json, say
from mcp_authz.cli.taking import record_taking
from mcp_authz.errors import ConfigError
from mcp_authz.new_file import write_new
from mcp_authz.rules.display import visible
from mcp_authz.rules.sentence import sentence
from mcp_authz.shredding import what_is_gone


@asynchronous
async def explain(
    ctx: typer.Context,
    call: Annotated[str, typer.Argument(metavar="CALL", help="The id of a call or a hold, or enough of it.")],
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write its records and what was signed, to verify elsewhere with public keys."
        ),
    ] = None,
    with_arguments: Annotated[
        bool,
        typer.Option("--with-arguments", help="With --bundle: values of arguments are in it, for who may read them."),
    ] = False,
    json: Json = False,
) -> None:
    """Tell what became of one call: who asked, for whom, through whom, who approved it, how it ended."""
    if with_arguments and bundle is None:
        raise typer.BadParameter(
            "--with-arguments goes with --bundle FILE; `mcp-authz holds show` shows those of a hold"
        )
    if (there := named_gateway(ctx)) is not None:
        if bundle is not None:
            raise ConfigError("a bundle is written on the machine of the gateway alone; leave out --bundle, or --at")
        await elsewhere_log.story(there, call, json=json)
        return
    async with installation(ctx) as here:
        records = await records_of(here.store, call)
        gone = await what_is_gone(here.store, records)
        excerpt = None
        if bundle is not None:
            excerpt = await bundle_of(
                here.store, here.clock, records, gateway=here.config.public_url, with_arguments=with_arguments
            )
            if with_arguments:
                await record_taking(here, "a bundle", str(records[0].event.call or call))
    told = story([record.event for record in records])
    if bundle is not None and excerpt is not None:
        _write(bundle, excerpt)
    if json:
        print_json({"story": told, "gone": list(gone), "records": [views.record(record) for record in records]})
        return
    say(told)
    for one in gone:
        say(one)
    say()
    for record in records:
        say(f"{local(record.event.at)}  {visible(sentence(record.event))}")
    if bundle is not None and excerpt is not None:
        say()
        newer = len(excerpt["uncovered"])
        if newer:
            say(f"{newer} of these records are newer than the last checkpoint: they are the gateway's word alone")
        say(f"the keys are those of `{command_line(ctx, 'audit', 'keys')}`; bring them there by a way of their own")
        next_step(command_line(ctx, "audit", "verify", "--excerpt", str(bundle), "--keys", "KEYS.json"))


@asynchronous
async def keys(ctx: typer.Context) -> None:
    """Print the public keys of all checkpoints as a JWK Set; keep it away from the store, to verify with."""
    async with installation(ctx) as here:
        print_json(await checkpoint_keys(here.store))


def _write(path: Path, document: dict[str, Any]) -> None:
    """The file is there whole; it has what the records have, so it is for its owner alone."""
    try:
        write_new(path, json_text.dumps(document, indent=1) + "\n")
    except FileExistsError:
        raise ConfigError(f"`{path}` is there already; name another file") from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be written: {error.strerror}") from None
