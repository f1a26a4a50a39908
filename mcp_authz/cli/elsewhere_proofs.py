"""What proves a call of a gateway elsewhere: its bundle and the public keys, as that gateway hands them out."""

from __future__ import annotations

from typing import Any

from mcp_authz.cli.audit_evidence import bundle_text
from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.output import print_json
from mcp_authz.client.administering import Refused, segment
from mcp_authz.rules.excerpt import FORMAT


async def bundle(url: str, call: str) -> tuple[str, int]:
    """The bundle of one call as its file has it, and how many of its records no checkpoint covers.

    What it proves is for `audit verify` to say, by keys that did not come with it.

    Raises:
        Refused: the person may not have it, or what came is no bundle.
    """
    async with elsewhere(url) as there:
        told = await there.read(f"/calls/{segment(call)}/bundle")
        if told.get("format") != FORMAT:
            raise Refused(f"what {url} answered is no bundle; is it a gateway of this version?")
        return bundle_text(told), len(told["uncovered"])


async def keys(url: str) -> None:
    """The public keys of all checkpoints there are printed as a JWK Set, and nothing else that came with them."""
    async with elsewhere(url) as there:
        print_json({"keys": [_key(one) for one in (await there.read("/audit-keys"))["keys"]]})


def _key(told: Any) -> dict[str, str]:
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise TypeError("a key is an object of strings")
    return told
