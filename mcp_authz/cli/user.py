"""`mcp-authz user`: people, and the keys and passkeys with which they approve."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz import views
from mcp_authz.accounts import Accounts, invitation_link
from mcp_authz.agents import Approver, People
from mcp_authz.authorization import Identity
from mcp_authz.cli import elsewhere_commands, keyfile, terminal
from mcp_authz.cli.agent import key_line
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import facts, local, next_step, print_json, say, table
from mcp_authz.cli.states import shown_words
from mcp_authz.errors import ConfigError, Conflict, NotFound
from mcp_authz.installation import Installation
from mcp_authz.passkey import Passkey
from mcp_authz.people_elsewhere import link as link_identity
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import PrivateKey, b64url, seal_private

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """People: who agents act for, who owns them, who approves."""


@app.command()
@asynchronous
async def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9, `.`, `_` and `-`.")],
    group: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="A group that approval rules can name. Repeatable.")
    ] = None,
) -> None:
    """Register a person."""
    async with installation(ctx) as here:
        person = await People(here.store, here.clock).add(name, groups=frozenset(group or []), by=operator())
    groups = f", in {', '.join(sorted(person.groups))}" if person.groups else ""
    say(f"person {person.name} is registered{groups}")
    next_step(command_line(ctx, "user", "passkey", person.name))


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, json: Json = False) -> None:
    """List every person."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.listed(there, "users", partial(_say_people, ctx, json=json))
        return
    async with installation(ctx) as here:
        people = [views.person(person) for person in await here.store.people()]
    _say_people(ctx, people, json=json)


def _say_people(ctx: typer.Context, people: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(people)
        return
    table(
        ("NAME", "GROUPS", "STATUS"),
        ((it["name"], shown_words(it["groups"]), it["status"]) for it in people),
        empty=f"no people yet; {command_line(ctx, 'user', 'add', 'NAME')} registers one",
    )


@app.command()
@asynchronous
async def show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Their name.")], json: Json = False
) -> None:
    """Show one person: keys and passkeys they approve with, who knows them elsewhere, and where they are signed in."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.one(there, "users", name, partial(_say_elsewhere, json=json))
        return
    async with installation(ctx) as here:
        approver = await _approver(ctx, here, name)
        passkeys = await here.store.passkeys_of(approver.person.name)
        identities = await here.store.identities_of(approver.person.name)
        browsers = len(await here.store.sign_ins_of(approver.person.name))
        now = here.clock()
    person = approver.person
    if json:
        print_json(views.known(person, approver.keys, passkeys, identities, browsers))
        return
    facts(
        [
            ("person", person.name),
            ("status", person.status),
            ("groups", shown_words(person.groups, "none")),
            *((f"key {number}", key_line(key, now)) for number, key in enumerate(approver.keys, 1)),
            *((f"passkey {number}", _passkey_line(passkey)) for number, passkey in enumerate(passkeys, 1)),
            *(("known to", f"{one.issuer}, as {visible(one.subject)}") for one in identities),
            ("signed in", _where(browsers)),
        ]
    )


def _say_elsewhere(person: dict[str, Any], *, json: bool) -> None:
    """What the gateway elsewhere tells of one person."""
    if json:
        print_json(person)
        return
    facts(
        [
            ("person", person["name"]),
            ("status", person["status"]),
            ("groups", shown_words(person["groups"], "none")),
            *((f"key {number}", f"{it['thumbprint']}, {it['status']}") for number, it in enumerate(person["keys"], 1)),
            *(
                (f"passkey {number}", f"{it['id'][:12]}  {it['label']}, {it['status']}")
                for number, it in enumerate(person["passkeys"], 1)
            ),
            *(("known to", f"{it['issuer']}, as {it['subject']}") for it in person["identities"]),
            ("signed in", _where(int(person["browsers"]))),
        ]
    )


def _where(browsers: int) -> str:
    return f"{browsers} browser{'' if browsers == 1 else 's'}" if browsers else "nowhere"


@app.command()
@asynchronous
async def key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Their name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="Where the sealed key is written.")],
) -> None:
    """Make a key that NAME approves with, sealed with a passphrase that is typed at the terminal."""
    keyfile.require_free(file)
    async with installation(ctx) as here:
        await _approver(ctx, here, name)
        passphrase = terminal.ask_new_passphrase(f"passphrase for the key of {name}: ")
        private = PrivateKey.generate()
        with keyfile.written(file, seal_private(private, passphrase) + "\n"):
            await People(here.store, here.clock).add_key(name, private.public, by=operator())
    say(f"{name} approves with key {private.public.thumbprint}, sealed in {file}")
    next_step(command_line(ctx, "holds", "list"))


@app.command()
@asynchronous
async def passkey(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Their name.")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Revoke the passkeys there are first; the page says so for a week."),
    ] = False,
) -> None:
    """Print a one-time link by which NAME makes a passkey, to sign in and approve with on the page.

    Whoever has a passkey adds another on the page itself.
    """
    async with installation(ctx) as here:
        person = (await _approver(ctx, here, name)).person.name
        accounts = Accounts(here.store, here.clock)
        revoked = await accounts.revoke_passkeys(person, by=operator()) if replace else 0
        again = command_line(ctx, "user", "passkey", name, "--replace")
        with advising(Conflict, f"add another at {here.config.public_url}/passkeys; if all are lost: {again}"):
            token = await accounts.invite(person, by=operator())
    if revoked:
        say(f"{revoked} passkey{'' if revoked == 1 else 's'} of {person} revoked; the page says so for a week")
    say("while the gateway runs, open this link within the hour; it works once:")
    say(invitation_link(here.config.public_url, token))


@app.command()
@asynchronous
async def link(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Their name here.")],
    subject: Annotated[str, typer.Option(metavar="SUB", help="What the provider calls them: the claim `sub`.")],
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="The provider; the configured one where this is left out.")
    ] = None,
) -> None:
    """Let NAME sign in with an OpenID provider too, as whom it knows as SUB."""
    async with installation(ctx) as here:
        person = (await _approver(ctx, here, name)).person.name
        configured = here.config.sign_in.provider
        named = issuer or (configured.issuer if configured is not None else None)
        if named is None:
            raise ConfigError("no provider is configured; name one with --issuer, or set `[sign_in.provider]`")
        identity = Identity(issuer=named, subject=subject, person=person, linked_at=here.clock())
        await link_identity(here.store, here.clock, identity, by=operator())
    say(f"{person} may sign in as {visible(subject)} of {named}")
    next_step(command_line(ctx, "user", "show", person))


@app.command("sign-out")
@asynchronous
async def sign_out(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Their name.")]
) -> None:
    """Sign NAME out of the page, in every browser.

    They can sign in again at once; to keep them out, revoke the person.
    """
    async with installation(ctx) as here:
        person = (await _approver(ctx, here, name)).person.name
        ended = await Accounts(here.store, here.clock).sign_out_everywhere(person, by=operator())
    browsers = f"{ended} browser{'' if ended == 1 else 's'}"
    say(f"{person} is signed out of {browsers}" if ended else f"{person} was signed in nowhere")
    next_step(command_line(ctx, "revoke", "person", person, "--reason", "REASON"))


def _passkey_line(passkey: Passkey) -> str:
    if passkey.status != "active":
        return f"{visible(passkey.label)}, revoked"
    used = "" if passkey.last_used_at is None else f", last used {local(passkey.last_used_at)}"
    return f"{b64url(passkey.credential)[:12]}  {visible(passkey.label)}, made {local(passkey.added_at)}{used}"


async def _approver(ctx: typer.Context, here: Installation, name: str) -> Approver:
    with advising(NotFound, f"the people there are: {command_line(ctx, 'user', 'list')}"):
        return await People(here.store, here.clock).show(name)
