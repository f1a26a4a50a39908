"""People on the page: who sees whom, and what an administrator ends of somebody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mcp_authz.web.next_page import next_page
from tests.attacks.attacker import answer_in
from tests.web.authenticator import visiting
from tests.web.test_consent import words
from tests.world import world

ROLES: Any = {"admins": ["user:ada"], "auditors": ["group:audit"]}
WHY = {"reason": "left us"}
LISTS, REPO = "acme__list_pull_requests", {"owner": "acme", "repo": "api"}


async def test_everybody_sees_themselves_and_those_with_a_role_everybody(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        await w.ready("coder", "pr")
        await w.client_agent("cursor", "alice", scope="pr")
        await w.person("bob", "team<b>")
        await w.person("ann", "audit")
        await w.person("ada")
        async with visiting(w, "alice") as alice, visiting(w, "ann") as ann, visiting(w, "ada") as ada:
            page = (await alice.get("/person/alice")).text
            assert "coder for alice" in words(page) and "cursor, which calls itself “Cursor”" in words(page)
            buttons = set(re.findall(r'href="(/stop/[^"]+)"', page))
            assert {it.split("/")[2] for it in buttons} == {"key", "grant"}, "what is hers"
            for button in buttons:
                assert (await alice.get(button)).status_code == 200, button
            assert 'href="/people"' not in page and 'href="/person/alice"' in (await alice.get("/holds")).text
            assert (await alice.get("/people")).status_code == 403
            assert (await alice.get("/person/bob")).status_code == (await alice.get("/person/none")).status_code == 404

            people = words((await ann.get("/people")).text)
            for said in ("bob in team<b>, no passkey", "alice in no group, 1 passkey, signed in with 1 browser"):
                assert said in people
            assert "cursor which calls itself “Cursor”" in people
            later = words((await ann.get("/people?after=alice")).text)
            assert "bob in team<b>" in later and "alice in no group" not in later
            for path in ("/people", "/person/bob", "/person/alice"):
                seen = (await ann.get(path)).text
                assert "/stop/" not in seen and "team<b>" not in seen, path
            for path in ("/people", "/person/alice", "/agent/coder"):
                for button in re.findall(r'href="(/stop/[^"]+)"', (await ada.get(path)).text):
                    assert (await ada.get(button)).status_code == 200, button
                    assert next_page(button) == button, "whoever has to sign in first comes back to it"
                    assert (await ann.get(button)).status_code in (403, 404), button
            for thing in ("person/bob", "client/cursor", "everything/user:bob", "everything/agent:coder"):
                for them in (alice, ann):
                    assert (await them.post(f"/stop/{thing}", WHY)).status_code == 403, thing
            assert await w.records("revocation") == ()


async def test_an_administrator_ends_a_passkey_a_client_all_of_somebody_and_the_person(tmp_path: Path) -> None:
    async with world(tmp_path, administration=ROLES) as w:
        coder = await w.ready("coder", "pr")
        await w.person("ada")
        cursor = await w.client_agent("cursor", "alice", scope="pr")
        tokens = [await w.token(coder), cursor.access_token]
        async with visiting(w, "alice") as alice, visiting(w, "ada") as ada:
            for token in tokens:
                assert not answer_in(await w.raw_call(token, LISTS, REPO))["result"].get("isError")
            page = (await ada.get("/person/alice")).text
            (passkey,) = re.findall(r'href="(/stop/passkey/[^"]+)"', page)
            told = words((await ada.get(passkey)).text)
            assert (
                "Revoke the passkey" in told and "1 sign-in" in told and (await alice.get("/holds")).status_code == 200
            )
            assert (await ada.post(passkey, WHY)).json()["next"] == "/person/alice"
            assert (await alice.get("/holds")).status_code == 401
            assert "revoked" in words((await ada.get("/person/alice")).text)

            assert "1 delegation: cursor@alice for alice" in words((await ada.get("/stop/client/cursor")).text)
            assert (await ada.post("/stop/client/cursor", WHY)).json()["next"] == "/people#clients"
            assert (await w.raw_call(tokens[1], LISTS, REPO)).status_code == 401
            assert "Revoked already" in words((await ada.get("/stop/client/cursor")).text)

            told = words((await ada.get("/stop/everything/user:alice")).text)
            assert "End everything that alice has until now?" in told
            assert "2 sessions:" in told and "1 key:" in told and "0 sign-ins" in told
            assert not answer_in(await w.raw_call(tokens[0], LISTS, REPO))["result"].get("isError"), "only looked at"
            assert (await ada.post("/stop/everything/user:alice", WHY)).json()["next"] == "/person/alice"
            assert (await w.raw_call(tokens[0], LISTS, REPO)).status_code == 401
            assert "Nothing to end" in words((await ada.get("/stop/everything/user:alice")).text)

            assert (await ada.post("/stop/person/alice", WHY)).json()["next"] == "/person/alice"
            assert "They never come back" in words((await ada.get("/person/alice")).text)
            said = [it.event.fields for it in await w.records("revocation")]
            assert [it["of"] for it in said] == ["passkey", "client", "everything", "person"]
            assert {(it["by"], it["reason"]) for it in said} == {("user:ada", "left us")}
            for gone in ("person/none", "client/none", "passkey/none", "everything/user:none"):
                assert (await ada.get(f"/stop/{gone}")).status_code == 404, gone
            assert (await ada.get("/stop/everything/nonsense")).status_code == 400
