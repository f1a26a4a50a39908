"""A bundle of one call on another machine: every signature, whose key it is, and nothing in it that can be changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.cli.audit_evidence import excerpted, read_keys
from mcp_authz.errors import AuthzError
from mcp_authz.protocol.answers import ENVELOPE
from tests.cli.desk import Desk
from tests.cli.test_audit_evidence import DEPLOY, checkpoint
from tests.road.wire import wire
from tests.signing import signing
from tests.world import MODERN, World, world


async def a_signed_deployment(w: World) -> str:
    """A call that its agent signed, that alice approved with her key, and that ran; the id of its hold."""
    coder = await w.ready("coder", "deploy")
    sign = await signing(w, coder)
    async with wire(w, coder, MODERN) as client:
        meta = sign.meta("acme__deploy", DEPLOY, at=w.clock())
        held = (await (await client.call("acme__deploy", DEPLOY, meta=meta)).result())["_meta"][ENVELOPE]["hold"]
        # A secret that she typed is in what she signed, and was taken out of the record: they agree all the same.
        await w.answer(held, by="alice", reason=f"with ghp_{'a' * 36}")
        meta = sign.meta("acme__deploy", DEPLOY, at=w.clock())
        assert not (await (await client.call("acme__deploy", DEPLOY, meta=meta)).result()).get("isError")
    return str(held)


def written(desk: Desk, hold: str) -> tuple[Path, Path, Path]:
    """The bundle without values, the one with them, and the public keys; nothing else gets to the other machine."""
    files = desk.directory / "lean.json", desk.directory / "full.json", desk.directory / "keys.json"
    files[2].write_text(desk.ok("audit", "keys"))
    desk.ok("audit", "explain", hold, "--bundle", str(files[0]))
    assert not desk.json("audit", "list", "--kind", "administration", "--text", "took"), "that one had no values"
    desk.ok("audit", "explain", hold, "--bundle", str(files[1]), "--with-arguments")
    desk.ok("holds", "export", hold)
    bundle, verdicts = (it["fields"] for it in desk.json("audit", "list", "--kind", "administration", "--text", "took"))
    assert (bundle["taken"], verdicts["taken"]) == ("a bundle", "the verdicts") and hold in verdicts["summary"]
    assert bundle["by"] == verdicts["by"] and bundle["by"].startswith("user:")
    return files


async def test_a_call_verifies_on_another_machine_and_nothing_of_it_can_be_changed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        hold = await a_signed_deployment(w)
        await checkpoint(w, tmp_path / "checkpoints.txt")
    (tmp_path / "gateway.toml").write_text(f'data_dir = "{tmp_path / "data"}"\n')
    lean, full, keys = await anyio.to_thread.run_sync(written, Desk(directory=tmp_path), hold)
    assert DEPLOY["version"] not in lean.read_text() and DEPLOY["version"] in full.read_text()
    (tmp_path / "far").mkdir()
    far = Desk(directory=tmp_path / "far")

    def verified(file: Path) -> Any:
        return far.run("audit", "verify", "--excerpt", str(file), "--keys", str(keys), global_options=())

    short, long = await anyio.to_thread.run_sync(lambda: (verified(lean), verified(full)))
    assert short.code == 0 and "alice's own key signed that they approved exactly this" in short.out, short
    assert "the signed call that record" in short.out and "left out (`--with-arguments`" in short.out
    assert long.code == 0 and "coder signed exactly this call of acme__deploy" in long.out, long
    assert "this key is coder's" in long.out and "this key is alice's" in long.out
    assert "the displayed text is that of the call" in long.out and "left out" not in long.out
    trusted = read_keys(keys)
    assert changed_unseen(json.loads(full.read_text()), tmp_path / "changed.json", trusted) == []


async def test_what_an_operator_shreds_is_gone_and_everything_else_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        hold = await a_signed_deployment(w)
        await checkpoint(w, tmp_path / "checkpoints.txt")
    (tmp_path / "gateway.toml").write_text(f'data_dir = "{tmp_path / "data"}"\n')
    await anyio.to_thread.run_sync(shredded, Desk(directory=tmp_path), hold)


def shredded(desk: Desk, hold: str) -> None:
    dry = desk.json("audit", "shred", hold, "--reason", "typed by mistake", "--dry-run")
    assert (dry["holds"], dry["proofs"], dry["inputs"]) == ([hold], 2, 2), dry
    assert DEPLOY["version"] in desk.ok("holds", "show", hold)
    assert "gone: 1 held call, 2 signed calls, 2 policy inputs" in desk.ok("audit", "shred", hold, "--reason", "typed")
    assert "nothing is kept" in desk.ok("audit", "shred", "--before", "now", "--reason", "again")
    (record,) = desk.json("audit", "list", "--kind", "administration", "--text", "shredded")
    assert record["fields"]["reason"] == "typed" and record["fields"]["holds"] == 1
    shown = desk.ok("holds", "show", hold)
    assert DEPLOY["version"] not in shown and "arguments:\n  shredded 20" in shown and "alice approved" in shown
    assert desk.json("holds", "show", hold)["shredded_at"] is not None
    assert "were shredded on" in desk.refused("holds", "export", hold)
    told = desk.ok("audit", "explain", hold, "--bundle", str(desk.path("after.json")), "--with-arguments")
    assert f"the verdicts of {hold} were shredded on" in told and "a signed call is not kept any more" in told
    assert "unbroken" in desk.ok("audit", "verify")
    desk.path("keys.json").write_text(desk.ok("audit", "keys"))
    shows = desk.run(
        "audit", "verify", "--excerpt", str(desk.path("after.json")), "--keys", str(desk.path("keys.json"))
    )
    assert shows.code == 0 and "the verdict that record" in shows.out and "nothing is wrong" in shows.out


def changed_unseen(whole: dict[str, Any], file: Path, keys: Any) -> list[str]:
    """What could be another text, or be missing, without anything being found wrong; some bytes of each text."""
    unseen = []
    for where, holder, name in [*places(whole)]:
        kept = holder[name]
        others: list[str | None] = ["another"] if kept is None else [None]
        if isinstance(kept, str) and kept:
            step = max(1, len(kept) // 5)
            others = [
                f"{kept[:at]}{'A' if kept[at] != 'A' else 'B'}{kept[at + 1 :]}" for at in range(0, len(kept), step)
            ]
        for other in others:
            holder[name] = other
            file.write_text(json.dumps(whole))
            try:
                if not excerpted(file, keys).is_wrong:
                    unseen.append(f"{where}: {other}")
            except AuthzError:
                pass
        holder[name] = kept
    return unseen


def places(it: Any, where: str = "") -> Any:
    """Every text and every other value in a document: what has it, and under which name."""
    for name in list(it) if isinstance(it, dict) else range(len(it)) if isinstance(it, list) else ():
        if isinstance(it[name], dict | list):
            yield from places(it[name], f"{where}/{name}")
        else:
            yield f"{where}/{name}", it, name
