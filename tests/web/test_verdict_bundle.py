"""A held call with its verdicts, verified from one file: whatever is changed in it is found, and by what."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz.errors import AuthzError
from mcp_authz.model import Assurance, HoldState, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import digest, digest_b64url
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.keys import PrivateKey, PublicKey, unb64url
from mcp_authz.rules.statement_checks import Statement, check_statement
from mcp_authz.rules.strict_json import dump, parse_object
from mcp_authz.rules.verdict import make_statement
from mcp_authz.rules.verdict_bundle import MEMBERS, TYP, Given, Keys, make_bundle, read_hold
from mcp_authz.rules.verdict_checks import Trust, verify_bundle
from mcp_authz.store.ports import Event
from mcp_authz.verdict_bundles import export_bundle, verdict_key
from mcp_authz.web.passkeys import verify_kept
from tests.attacks.attacker import spy, tool
from tests.standing import ANY, give
from tests.web.authenticator import visiting
from tests.world import ROOT, World, world

Bundle = dict[str, Any]

PAGE = (ROOT / "docs" / "verdicts.md").read_text()
EXAMPLE = parse_object(PAGE.split("```json\n")[1].split("```")[0].encode())

WORD = {  # what is the gateway's word alone: it could sign another bundle that says otherwise
    "hold.owner",
    "hold.interactive",
    "hold.rules.0.expires_seconds",
}


async def made(w: World, tmp_path: Path) -> tuple[Bundle, PrivateKey, dict[str, PublicKey]]:
    """The bundle of a call that alice approved by passkey and bob by key; the gateway's key, and what it publishes."""
    await w.person("alice", "ops")
    await w.person("bob", "ops")
    coder = await w.ready("coder", "spy:drop")
    held = await w.call(coder, "spy__drop", where="h\u202eere", more=[1, 2.5, None, True])
    async with visiting(w, "alice") as alice:
        await alice.approve(held.hold, "looked at it")
    await w.answer(held.hold, by="bob", reason="me too")
    assert not (await w.call(coder, "spy__drop", where="h\u202eere", more=[1, 2.5, None, True])).is_error
    async with httpx2.AsyncClient() as http:
        published = await http.get(f"{w.config.public_url}/approval-keys")
    assert published.headers["cache-control"] == "public, max-age=300"
    keys = {one["kid"]: PublicKey.from_jwk(one) for one in published.json()["keys"]}
    assert all(kid == key.thumbprint for kid, key in keys.items())
    bundle = await export_bundle(w.store, w.clock, await w.store.hold(held.hold), gateway=w.config.public_url)
    return parse_object(dump(bundle)), await verdict_key(w.store), keys


def trust(bundle: Bundle, keys: Mapping[str, PublicKey] | None) -> Trust:
    return Trust(keys=keys, passkey=partial(verify_kept, public_url=bundle["gateway"]))


def wrongs(bundle: Bundle, keys: Mapping[str, PublicKey] | None) -> list[str]:
    """What is found to be wrong; a bundle that cannot be read is found too."""
    try:
        found = verify_bundle(bundle, trust(bundle, keys))
    except AuthzError as error:
        return [str(error)]
    return [finding.text for finding in found if finding.verdict == "wrong"]


def resigned(bundle: Bundle, key: PrivateKey) -> Bundle:
    """What a gateway could make that lies about what it holds."""
    content = {name: value for name, value in bundle.items() if name != "signature"}
    claims = {"hold": content["hold"]["id"], "s256": digest_b64url(content), "iat": 1}
    return {**content, "signature": jose.sign(claims, typ=TYP, key=key, kid=key.public.thumbprint)}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value that has no others in it, with the way there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield path, value
        return
    for name, one in inside:
        yield from leaves(one, (*path, name))


def changed(value: Any) -> Any:
    """Another value of the kind; of a time, one that is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if value is None:
        return "something"
    return f"{value[:-1]}{'a' if value[-1:] != 'a' else 'b'}"


def altered(bundle: Bundle) -> Iterator[tuple[str, Bundle]]:
    """The bundle with each of its values changed, one at a time."""
    for path, value in leaves(bundle):
        other = copy.deepcopy(bundle)
        place: Any = other
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = changed(value)
        yield ".".join(map(str, path)), other


async def test_a_bundle_verifies_anywhere_and_nothing_in_it_can_be_changed_unseen(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    rule = {"by": ["group:ops"], "quorum": 2, "assurance": "signed-in"}
    config = {"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}
    async with world(tmp_path, servers=config, approval={"destructive": rule}) as w:
        bundle, gateway, keys = await made(w, tmp_path)
    (tmp_path / "bundle.json").write_bytes(dump(bundle))

    found = verify_bundle(bundle, trust(bundle, keys))
    texts = [finding.text for finding in found]
    assert wrongs(bundle, keys) == [] == wrongs(bundle, None)
    assert any(text.startswith("alice approved this with a passkey, ") for text in texts), texts
    assert any(text.startswith("bob approved this with their own key, ") for text in texts), texts
    assert "rule destructive is met, 2 of 2: alice, bob" in texts
    assert "compare it with" in verify_bundle(bundle, trust(bundle, None))[0].text
    assert wrongs(bundle, {"other": PrivateKey.generate().public}) == [
        "the gateway's key is none of the keys that you trust"
    ]

    # Each value of the file, as anybody could change it.
    assert [path for path, other in altered(bundle) if not wrongs(other, keys)] == []
    # And as a gateway could that signs its bundle anew: what people signed, it cannot change.
    signed = [(path, resigned(other, gateway)) for path, other in altered(bundle) if not path.startswith("records")]
    unseen = {path for path, other in signed if not wrongs(other, keys) and path != "signature"}
    assert unseen == WORD, unseen ^ WORD

    # The page about it has an example of the same members.
    for part in ("hold", "keys", "action"):
        assert EXAMPLE[part].keys() == bundle[part].keys()
    for part in ("verdicts", "records"):
        assert EXAMPLE[part][0].keys() == bundle[part][0].keys()
    assert EXAMPLE["records"][0]["fields"].keys() == bundle["records"][-1]["fields"].keys()
    assert EXAMPLE["records"][0]["fields"]["statement"] == name_of(EXAMPLE["verdicts"][0]["statement"])

    # Each byte of each statement, by the statement alone.
    held = read_hold(bundle)
    for said in bundle["verdicts"]:
        theirs = [bundle["keys"]["gateway"], *bundle["keys"]["approvers"]["bob"]]
        statement = Statement(
            held=held,
            said=said,
            act_s256=digest_b64url(bundle["action"]),
            shown_s256=jose.read(said["statement"]).claims["shown_s256"],
            keys={jwk["kid"]: PublicKey.from_jwk(jwk) for jwk in theirs},
            passkeys={unb64url(one): unb64url(key) for one, key in bundle["keys"]["passkeys"].items()},
        )
        passkey = trust(bundle, keys).passkey
        check_statement(statement, passkey)
        text = said["statement"]
        for at, character in enumerate(text):
            flipped = f"{text[:at]}{'A' if character != 'A' else 'B'}{text[at + 1 :]}"
            with pytest.raises(AuthzError):
                check_statement(
                    Statement(
                        held=held,
                        said={**said, "statement": flipped},
                        act_s256=statement.act_s256,
                        shown_s256=statement.shown_s256,
                        keys=statement.keys,
                        passkeys=statement.passkeys,
                    ),
                    passkey,
                )


def test_no_text_of_a_bundle_reaches_the_terminal_of_who_verifies_it() -> None:
    # Made and signed by somebody else than the gateway: only its key is wrong, and that line must stay to be read.
    key, other = PrivateKey.generate(), PrivateKey.generate()
    person, at = PersonName("alice\x1b[1A\x1b[2K\u202e\n\u3164"), datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
    held = replace(read_hold(EXAMPLE), digest=digest(EXAMPLE["action"]), asked_at=at, state=HoldState.PENDING)
    statement = make_statement(
        held, person=person, approve=True, assurance=Assurance.SIGNED_IN, reason="\x1b[2J", at=at, key=key
    )
    verdict = Verdict(
        hold=held.id,
        person=person,
        approve=True,
        assurance=Assurance.SIGNED_IN,
        statement=statement,
        signed_by=key.public.thumbprint,
        reason="\x1b[2J",
        given_at=at,
    )
    bundle = make_bundle(
        held, [Given(verdict=verdict, meets=())], keys=Keys(gateway=key.public), gateway="x", records=[], key=key, at=at
    )
    found = verify_bundle(bundle, trust(bundle, {other.public.thumbprint: other.public}))
    assert "the gateway's key is none of the keys that you trust" in [one.text for one in found]
    assert len(found) > 5 and all(one.text.isprintable() and "\u3164" not in one.text for one in found), found
    assert any("\\u{001b}" in one.text for one in found) and not any("\\\\u{" in one.text for one in found)


async def test_a_call_that_a_standing_approval_answered_verifies_by_its_pattern(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    config = {"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}
    rule = {"by": ["group:ops"], "assurance": "signed-in"}
    async with world(tmp_path, servers=config, approval={"destructive": rule}) as w:
        await w.person("alice", "ops")
        coder = await w.ready("coder", "spy:drop")
        first = await w.call(coder, "spy__drop", where="a", mode="m")
        await give(w, first.hold, by="alice", where=ANY)
        assert not (await w.call(coder, "spy__drop", where="b", mode="m")).is_error
        left = Event(kind="administration", at=w.clock(), fields={})
        await w.store.set_groups(PersonName("alice"), frozenset(), left)  # what she met then, she met
        holds = [held for held in await w.store.holds() if held.verdicts]
        bundles = [
            parse_object(dump(await export_bundle(w.store, w.clock, held, gateway=w.config.public_url)))
            for held in holds
        ]
        key = await verdict_key(w.store)
    assert len(bundles) == 2
    for bundle in bundles:
        texts = [finding.text for finding in verify_bundle(bundle, trust(bundle, None))]
        assert wrongs(bundle, None) == [], wrongs(bundle, None)
        assert any(text.startswith("alice approved this by standing approval ") for text in texts), texts
    other = copy.deepcopy(bundles[1])
    other["action"]["arguments"]["mode"] = "x"
    assert any("does not fit the pattern" in text for text in wrongs(resigned(other, key), None))
    other = copy.deepcopy(bundles[1])
    other["verdicts"][0]["standing"]["pattern"]["arguments"]["mode"] = {"constraint_type": "wildcard"}
    assert any("pattern is not the one" in text for text in wrongs(resigned(other, key), None))


def test_the_example_of_the_page_verifies_and_has_every_member_that_there_is() -> None:
    example = EXAMPLE
    assert wrongs(example, None) == []
    texts = [finding.text for finding in verify_bundle(example, trust(example, None))]
    assert any(text.startswith("bob approved this with their own key") for text in texts)
    members, claims = (set(re.findall(r"`(\w+)`", row)) for row in _columns(PAGE))
    assert members == set(MEMBERS) == set(example)
    statement = jose.read(example["verdicts"][0]["statement"]).claims
    assert claims == {*statement, "terms", "proof"}


def _columns(page: str) -> list[str]:
    """The first column of each of the page's tables."""
    tables = re.findall(r"\|---\|---\|\n((?:\|.*\n)+)", page)
    return [" ".join(line.split("|")[1] for line in table.splitlines()) for table in tables]
