"""The policy that decides: swapped as a whole when its files change, and kept when they are no good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.config import Config, parse_config
from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.installation import open_installation, utc_now
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.live import LivePolicy
from mcp_authz.policy.loading import make_engine, read_files
from mcp_authz.policy.on_disk import policy_on_disk
from mcp_authz.policy.unknown_actions import unknown_actions
from mcp_authz.store.ports import Store
from tests.policy.documents import document

PERMIT = '@id("all") permit (principal, action, resource);'
DENY = PERMIT + '@id("none") forbid (principal, action, resource);'
BAD = PERMIT + '@id("bad") permit (principal, action, resource) when { context.nonsense == 1 };'


async def anything(_: PolicyEngine) -> None:
    """Any engine may decide."""


async def nothing(_: PolicyEngine) -> None:
    """No engine may decide."""
    raise PolicyError("canary: policy permits a call of nobody")


class Place:
    """A folder with a policy, and what a gateway would make of it."""

    def __init__(self, directory: Path, store: Store, config: Config) -> None:
        self.file = directory / "p.cedar"
        self.config = config
        self.store = store
        self.policy = LivePolicy(
            key="policy",
            read=partial(read_files, config, config.policy),
            make=partial(make_engine, config, config.policy),
        )

    async def permits(self) -> bool:
        """What it decides now."""
        return (await self.policy.evaluate(document())).permit

    async def reload(self, try_: Any = anything) -> bool:
        """Load what is on disk."""
        return await self.policy.reload(self.store, utc_now, try_)

    async def records(self) -> list[Mapping[str, Any]]:
        """What is on record about policies."""
        return [record.event.fields for record in await self.store.records(kind="policy")]


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    """A policy that permits everything decides."""
    (directory / "p.cedar").write_text(PERMIT)
    config = parse_config({"data_dir": str(directory / "data"), "policy": str(directory / "p.cedar")})
    async with open_installation(config) as here:
        yield Place(directory, here.store, config)


async def test_a_file_that_is_saved_decides_soon_and_its_record_names_both_digests_and_the_file(tmp_path: Path) -> None:
    async with place(tmp_path) as p, anyio.create_task_group() as group:
        before = p.policy.digest
        group.start_soon(p.policy.follow, p.store, utc_now, anything)
        p.file.write_text(DENY)
        with anyio.fail_after(10):
            while await p.permits():  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.05)
            while not await p.records():  # noqa: ASYNC110
                await anyio.sleep(0.05)
        (record,) = await p.records()
        group.cancel_scope.cancel()
    assert (record["before"], record["policy"]) == (before, p.policy.digest) and before != p.policy.digest
    assert record["files"] == [str(p.file)]


WRONG: dict[str, Callable[[Path], object]] = {
    "nonsense": lambda file: file.write_text(BAD),
    "half of a file": lambda file: file.write_text(DENY[:-9]),
    "empty": lambda file: file.write_text(""),
    "a head without a policy": lambda file: file.write_text("// what nobody may do\n"),
    "no text": lambda file: file.write_bytes(b"\xff"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_cannot_be_loaded_changes_nothing_and_is_said_once(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path) as p:
        digest = p.policy.digest
        WRONG[what](p.file)
        assert not await p.reload() and not await p.reload()
        assert await p.permits() and p.policy.digest == digest
        (record,) = await p.records()
        assert record["policy"] == digest and "p.cedar" in record["error"]
        assert "`policy` on disk is not what decides" in caplog.text
        p.file.write_text(DENY)
        assert await p.reload() and not await p.permits()


async def test_a_set_that_permits_what_none_may_permit_does_not_decide(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.file.write_text(PERMIT + "// other")
        assert not await p.reload(nothing)
        assert "canary" in (await p.records())[0]["error"]


async def test_a_bad_file_that_is_put_back_is_said_to_be_over(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.file.write_text(BAD)
        await p.reload()
        p.file.write_text(PERMIT)
        assert await p.reload()
        assert "again what decides" in (await p.records())[-1]["summary"] and len(await p.records()) == 2


async def test_a_file_that_is_being_written_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_authz.policy.live._PAUSE", 0.05)
    async with place(tmp_path) as p, anyio.create_task_group() as group:
        looks: list[str] = []
        read = p.policy._read

        def writing_on() -> Mapping[str, str]:
            """Between any two looks the file grows; each of its states is a sound policy."""
            if len(looks) < 6:
                p.file.write_text(f"{PERMIT} // {len(looks)}")
            looks.append("")
            return read()

        p.policy._read = writing_on
        group.start_soon(p.policy.follow, p.store, utc_now, anything)
        with anyio.fail_after(10):
            while not await p.records():  # noqa: ASYNC110
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
        assert len(await p.records()) == 1 and len(looks) > 6


async def test_what_a_start_would_say_of_the_policy_on_disk(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        permits_nobody = await policy_on_disk(p.config, utc_now())
        p.file.write_text(DENY)
        sound = await policy_on_disk(p.config, utc_now())
    assert "policy permits a call of nobody" in permits_nobody.trouble and permits_nobody.digest is None
    assert sound.trouble == "" and sound.digest is not None


REFUSED = {
    "policy.txt": "is no policy; give a file that ends in",
    ("a.cedar", "b.rego"): "`a.cedar` is cedar, `b.rego` is rego",
    ("a.cedar", "a.cedar"): "is named twice",
    ("opa+https://a/v1/data/x", "opa+https://b/v1/data/x"): "decides alone",
    ("a.cedar", "opa+https://a/v1/data/x"): "must be of one language",
    "opa+ftp://host/v1/data/x": "write opa+https://HOST",
    "opa+https://host/": "name the rule to ask",
    "opa+https://user:secret@host/v1/data/x": "no credentials in the URL",
    "authzen+http://pdp.example.com": "plain http is for localhost only",
    "https://host/v1/data/x": "is no policy",
}


@pytest.mark.parametrize("key", ["policy", "shadow_policy"])
@pytest.mark.parametrize("entries", REFUSED, ids=str)
def test_a_policy_that_is_named_wrongly_is_refused_with_a_sentence(entries: Any, key: str) -> None:
    named = entries if isinstance(entries, str) else list(entries)
    with pytest.raises(ConfigError) as refused:
        parse_config({key: named})
    assert f"`{key}`" in str(refused.value) and REFUSED[entries] in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "named", ["opa+http://localhost:8181/v1/data/agent/authz", "authzen+https://pdp.example.com", "builtin:deny_all"]
)
async def test_every_form_makes_an_engine_with_a_digest(named: str) -> None:
    config = parse_config({"policy": named})
    engine = make_engine(config, config.policy, read_files(config, config.policy))
    assert len(engine.digest) == 64
    if (close := getattr(engine, "aclose", None)) is not None:
        await close()


def test_a_policy_about_an_action_that_no_tool_has_is_named_with_its_place() -> None:
    text = '@id("typo")\nforbid (principal, action == Action::"secret.raed", resource);\n' + (
        '@id("fine") permit (principal, action in [Action::"secret.read", Action::"delegate"], resource);' + PERMIT
    )
    (told,) = unknown_actions({"team.cedar": text, "builtin:incident": text, "x.rego": "package x"}, {"secret.read"})
    assert told.startswith("team.cedar:1: policy `typo` is about `secret.raed`")


def test_a_builtin_is_a_name_and_never_a_path(tmp_path: Path) -> None:
    config = parse_config({"policy": "builtin:../tests/x"})
    with pytest.raises(ConfigError, match=r"cannot be read; give a file, or one of: builtin:"):
        read_files(config, config.policy)
