"""People sign in with their company's OpenID provider: a real one, which nobody here wrote."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mcp_authz.principals import PersonName
from tests.web.authenticator import visit
from tests.web.elsewhere import house, sign_in

ALICE = PersonName("alice")


async def test_whoever_the_company_knows_is_registered_and_signed_in_with_the_groups_it_gives(tmp_path: Path) -> None:
    async with house(tmp_path, servers={}) as (w, theirs), visit(w) as alice:
        arrived = await sign_in(alice)
        assert arrived.status_code == 200 and "<h1>Signed in as alice</h1>" in arrived.text, arrived.text
        assert 'data-next="/holds"' in arrived.text

        assert "Signed in as <b>alice</b>" in (await alice.get("/holds")).text
        person = await w.store.person(ALICE)
        assert person.groups == {"approvers"}, "a group that is not in the table counts for nothing"
        identity = await w.store.identity(theirs.issuer, "1001")
        assert identity is not None and identity.person == "alice"
        (event,) = [record.event.fields for record in await w.records("sign-in")]
        assert event["person"] == "user:alice" and event["issuer"] == theirs.issuer
        (kept,) = await w.store.sign_ins_of(ALICE)
        assert kept.credential is None and kept.authentication.issuer == theirs.issuer
        assert abs(kept.authentication.at - w.clock()) < timedelta(minutes=1)
