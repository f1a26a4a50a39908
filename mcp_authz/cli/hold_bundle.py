"""`mcp-authz holds export` and `holds verify`: a held call with its verdicts in one file, and that file verified."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mcp_authz.cli.invocation import asynchronous, installation
from mcp_authz.cli.options import Json, the_one
from mcp_authz.cli.output import print_json, say
from mcp_authz.cli.taking import record_taking
from mcp_authz.errors import InputError
from mcp_authz.model import HoldId
from mcp_authz.rules import strict_json
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.verdict_checks import Finding, Trust, verify_bundle
from mcp_authz.verdict_bundles import export_bundle
from mcp_authz.web.passkeys import verify_kept

_LARGEST: Final = 16 * 1024 * 1024  # bytes of a file; the largest call that can be shown is far below
_MARKS: Final = {"verified": "\N{CHECK MARK}", "wrong": "\N{BALLOT X}", "open": "?"}


@asynchronous
async def export(
    ctx: typer.Context, hold: Annotated[str, typer.Argument(metavar="HOLD", help="Its id, or enough of it.")]
) -> None:
    """Print one held call with all its signed verdicts as one JSON document, to be verified anywhere.

    The call's arguments are in it, as they were shown to whoever approved: give it to nobody who may not read them.
    """
    async with installation(ctx) as here:
        id_ = HoldId(the_one("hold", hold, [held.id for held in await here.store.holds()]))
        held = await here.store.hold(id_)
        assert held is not None  # noqa: S101 - it was there a moment ago, and holds are never removed
        await record_taking(here, "the verdicts", id_)
        bundle = await export_bundle(here.store, here.clock, held, gateway=here.config.public_url)
    # Not in canonical form: arguments were displayed in the order in which the agent sent them.
    say(strict_json.dump(bundle).decode())


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The bundle; `-` reads it from stdin.")],
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The gateway's public keys: a JWK Set, such as GATEWAY/approval-keys."),
    ] = None,
    json: Json = False,
) -> None:
    """Verify a bundle of `holds export`: every signature, what was signed, and whether the rules were met."""
    bundle = strict_json.parse_object(_read(file), max_bytes=_LARGEST)
    trusted = None if keys is None else _trusted(strict_json.parse_object(_read(str(keys)), max_bytes=_LARGEST))
    passkey = partial(verify_kept, public_url=str(bundle.get("gateway")))
    findings = verify_bundle(bundle, Trust(keys=trusted, passkey=passkey))
    wrong = any(finding.verdict == "wrong" for finding in findings)
    if json:
        print_json({"ok": not wrong, "findings": [{"verdict": one.verdict, "text": one.text} for one in findings]})
    else:
        _print(findings)
    if wrong:
        raise typer.Exit(1)


def _print(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        say(f"{_MARKS[finding.verdict]} {finding.text}")
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    say(f"{wrong} of these are wrong: do not rely on it" if wrong else "nothing is wrong; `?` is what it cannot show")


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read(_LARGEST + 1) if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"`{file}` cannot be read: {error.strerror}") from None


def _trusted(jwks: Mapping[str, Any]) -> dict[str, PublicKey]:
    listed = jwks.get("keys")
    if not isinstance(listed, list):
        raise InputError("this is no JWK Set; fetch GATEWAY/approval-keys")
    found = [PublicKey.from_jwk(one) for one in listed]
    return {key.thumbprint: key for key in found}
