"""`mcp-authz restore`: a backup takes the store's place, and nothing that was open in it counts any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mcp_authz.checkpoint_tail import newest_marks
from mcp_authz.cli.backup import progress
from mcp_authz.cli.invocation import command_line, config_of, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.places import the_only_one
from mcp_authz.config import Config
from mcp_authz.errors import ConfigError, InputError
from mcp_authz.installation import master_key, utc_now
from mcp_authz.rules.display import visible
from mcp_authz.rules.keys import Sealer
from mcp_authz.store.restoring import Asked, Restored
from mcp_authz.store.restoring import restore as put_back

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SHOWN: Final = 20  # ids of a kind that are printed; `--json` has all
_WORDS: Final = {
    "definition": "tools in quarantine again",
    "values": "calls whose arguments were shredded",
    "identity": "people who were unlinked from a provider",
    "authority": "agents that had got less",
    "group": "memberships",
    "switch": "switched off",
    "person": "people revoked",
}


@app.command()
def restore(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", readable=False, help="A file that `backup` made.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it goes on record.")],
    in_place: Annotated[
        bool, typer.Option("--in-place", help="What lies in the store's place was put there: it is the backup.")
    ] = False,
    since: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", readable=False, help="A newer store: what was revoked there is so here. Repeat it."
        ),
    ] = None,
    revocations_unknown: Annotated[
        bool,
        typer.Option("--revocations-unknown", help="Nothing tells what was revoked since: end every key and passkey."),
    ] = False,
    good: Annotated[
        list[str] | None,
        typer.Option(metavar="SUBJECT", help="With that: agent:NAME or user:NAME who keep theirs. Repeat it."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would end, and change nothing.")] = False,
    json: Json = False,
) -> None:
    """Put a backup in the store's place. What was open in it is void; what was revoked since stays revoked."""
    if (file is None) != in_place:
        raise InputError("name the backup, or say --in-place for what lies in the store's place")
    if good and not revocations_unknown:
        raise InputError("--good goes with --revocations-unknown")
    if any(not one.startswith(("agent:", "user:")) for one in good or ()):
        raise InputError("--good takes agent:NAME or user:NAME")
    asked = Asked(
        backup=file,
        reason=reason,
        by=operator(),
        since=tuple(since or ()),
        revocations_unknown=revocations_unknown,
        good=frozenset(good or ()),
        dry_run=dry_run,
    )
    done = _restored(config_of(ctx), asked)
    if json:
        print_json(_view(done, dry_run))
        return
    _tell(done, dry_run)
    next_step(command_line(ctx, *(_words(asked) if dry_run else ("agent", "list"))))


def _restored(config: Config, asked: Asked) -> Restored:
    """What the restore did, or would do.

    Raises:
        ConfigError: the key that the backup was made with is not there.
        StoreError: as `store.restoring.restore`.
    """
    if not (config.data / "master.key").exists():  # a new one would open nothing
        raise ConfigError(f"`{config.data / 'master.key'}` is missing: put the key there that the backup was made with")
    with the_only_one(config), progress("copied") as told:
        return put_back(
            config.data / "store.db",
            asked,
            sealer=Sealer(master_key(config.data)),
            clock=utc_now,
            seen=newest_marks(config),
            told=told,
        )


def _words(asked: Asked) -> list[str]:
    """The command that does what was asked."""
    return [
        "restore",
        *([] if asked.backup is None else [str(asked.backup)]),
        "--reason",
        asked.reason,
        *(["--in-place"] if asked.backup is None else []),
        *(word for one in asked.since for word in ("--since", str(one))),
        *(["--revocations-unknown"] if asked.revocations_unknown else []),
        *(word for one in sorted(asked.good) for word in ("--good", one)),
    ]


def _tell(done: Restored, dry_run: bool) -> None:
    would, begins = ("would be", "would begin") if dry_run else ("is", "began")
    say(f"the store {would} as it was at record {done.mark.sequence}; epoch {done.number} {begins}")
    if done.lost is not None:
        first, last = done.mark.sequence + 1, done.lost.sequence
        say(f"records {first} to {last} are not in it" if first < last else f"record {last} is not in it")
    if done.replaced is not None:
        say(f"what was there {would} in {done.replaced}")
    open_ = ", ".join(f"{count} {_plural(name)[: None if count != 1 else -1]}" for name, count in done.voided.items())
    say(f"void: {open_ or 'nothing was open'}; and every token, question and cookie from before")
    if not done.revocations_known:
        say("what was revoked since the backup is not known: whoever is not named with --good has no key any more")
        say("all calls are stopped: look at agents, people, clients and tools, then `mcp-authz start-all`")
    for kind, names in done.ended.items():
        say(f"{_WORDS.get(kind, f'{kind}s ended')}: {_listed(names)}")
    for kind, names in done.missing.items():
        say(f"made after the backup, not in it: {kind} {_listed(names)}")
    if done.keyless:
        say(f"agents without a key, to be enrolled anew: {_listed(done.keyless)}")
    say("agents sign in anew, and their sessions have to be started anew")


def _listed(names: Any) -> str:
    rest = len(names) - _SHOWN
    return visible(", ".join(names[:_SHOWN]) + (f" and {rest} more (--json has all)" if rest > 0 else ""))


def _view(done: Restored, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "epoch": done.number,
        "record": done.mark.sequence,
        "lost_until": None if done.lost is None else done.lost.sequence,
        "replaced": None if done.replaced is None else str(done.replaced),
        "revocations_known": done.revocations_known,
        "voided": dict(done.voided),
        "ended": {kind: list(names) for kind, names in done.ended.items()},
        "missing": {kind: list(names) for kind, names in done.missing.items()},
        "keyless": list(done.keyless),
    }


def _plural(name: str) -> str:
    """What a count is of, in the plural: `sign-ins`, `standing approvals`."""
    return "sign-ins" if name == "sign_ins" else name.replace("_", " ")
