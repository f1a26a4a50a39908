"""`mcp-authz audit explain`: one call's story, and the excerpt of the log that shows it elsewhere."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from mcp_authz import views
from mcp_authz.audit_bundles import bundle_of
from mcp_authz.audit_excerpts import records_of
from mcp_authz.audit_story import story, times_again, told_once
from mcp_authz.checkpoints import checkpoint_keys
from mcp_authz.cli import elsewhere_log, elsewhere_proofs
from mcp_authz.cli.audit_evidence import bundle_text
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
        if with_arguments:
            raise ConfigError("values of arguments leave the machine of the gateway by no --at; leave one of them out")
        await _elsewhere(ctx, there, call, bundle, json=json)
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
        _write(bundle, bundle_text(excerpt))
    if json:
        print_json({"story": told, "gone": list(gone), "records": [views.record(record) for record in records]})
        return
    say(told)
    for one in gone:
        say(one)
    say()
    for record, again in told_once(records, lambda record: record.event):
        until = f"{times_again(len(again))} {local(again[-1].event.at)}" if again else ""
        say(f"{local(record.event.at)}  {visible(sentence(record.event))}{until}")
    if bundle is not None and excerpt is not None:
        _say_written(ctx, len(excerpt["uncovered"]))
        next_step(command_line(ctx, "audit", "verify", "--excerpt", str(bundle), "--keys", "KEYS.json"))


async def _elsewhere(ctx: typer.Context, there: str, call: str, bundle: Path | None, *, json: bool) -> None:
    """The story of a call at a gateway elsewhere is told, and its bundle written: what is no bundle is not."""
    newer = 0
    if bundle is not None:
        _be_free(bundle)  # before anybody is on record for taking it
        text, newer = await elsewhere_proofs.bundle(there, call)
        _write(bundle, text)
    await elsewhere_log.story(there, call, json=json)
    if bundle is not None and not json:
        _say_written(ctx, newer)
        next_step(shlex.join(["mcp-authz", "audit", "verify", "--excerpt", str(bundle), "--keys", "KEYS.json"]))


def _say_written(ctx: typer.Context, newer: int) -> None:
    say()
    if newer:
        say(f"{newer} of these records are newer than the last checkpoint: they are the gateway's word alone")
    say(f"the keys are those of `{command_line(ctx, 'audit', 'keys')}`; bring them there by a way of their own")


@asynchronous
async def keys(ctx: typer.Context) -> None:
    """Print the public keys of all checkpoints as a JWK Set; keep it away from the store, to verify with."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_proofs.keys(there)
        return
    async with installation(ctx) as here:
        print_json(await checkpoint_keys(here.store))


def _be_free(path: Path) -> None:
    if os.path.lexists(path):
        raise _there_already(path)


def _there_already(path: Path) -> ConfigError:
    return ConfigError(f"`{path}` is there already; name another file")


def _write(path: Path, text: str) -> None:
    """The file is there whole; it has what the records have, so it is for its owner alone."""
    try:
        write_new(path, text)
    except FileExistsError:
        raise _there_already(path) from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be written: {error.strerror}") from None
