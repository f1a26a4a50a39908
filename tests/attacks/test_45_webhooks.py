"""Row 45 for webhooks: messages go where the operator said, and to no address that its name turns out to have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.errors import FetchRefused
from mcp_authz.posting import Poster, is_private_or_public
from mcp_authz.rules.public_address import is_public
from mcp_authz.webhooks import poster_for
from tests.attacks.test_45_fetching_from_inside import INSIDE
from tests.oauth.elsewhere import HERE, NAME
from tests.webhooks.receiver import Receiver, certificates, receiver

METADATA = ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0", "::", "ff02::1"]  # noqa: S104


def poster(trust: Any, *addresses: str, **more: Any) -> Poster:
    """What posts to a name that has these addresses, of which only the receiver's own counts as public."""

    async def resolve(_: str, __: int) -> Sequence[str]:
        return addresses or (HERE,)

    return Poster(**{"resolve": resolve, "may_reach": lambda address: address == HERE, "trust": trust, **more})


def url(host: Receiver, name: str = NAME, path: str = "/hook?key=1") -> str:
    return f"https://{name}:{host.port}{path}"


async def test_a_message_goes_to_an_address_that_was_judged_under_the_hosts_own_name(tmp_path: Path) -> None:
    serving, trust = certificates(tmp_path)
    async with receiver(serving) as host:
        posted = await poster(trust)(url(host), {"webhook-id": "1"}, b"{}")
        assert posted.is_taken and posted.status == 204
        (post,) = host.posts
        assert (post.path, post.headers["host"], post.body) == ("/hook?key=1", f"{NAME}:{host.port}", b"{}")
        assert "cookie" not in post.headers and post.headers["user-agent"] == "mcp-authz"


async def test_nothing_is_sent_to_an_address_that_is_not_public_unless_the_operator_says_so(tmp_path: Path) -> None:
    serving, trust = certificates(tmp_path)
    async with receiver(serving) as host:
        for address in (address for address in INSIDE if address != HERE):
            for addresses in ((address,), (HERE, address)):
                with pytest.raises(FetchRefused, match="public internet"):
                    await poster(trust, *addresses, may_reach=lambda a: a == HERE or is_public(a))(url(host), {}, b"{}")
        assert host.connections == 0
        assert (await poster(trust, may_reach=is_private_or_public)(url(host), {}, b"{}")).is_taken
    assert poster_for(allow_private=False).may_reach is is_public
    assert poster_for(allow_private=True).may_reach is is_private_or_public


def test_the_link_where_clouds_keep_credentials_is_not_private_enough() -> None:
    assert not any(is_private_or_public(address) for address in [*METADATA, "localhost", ""])
    assert all(is_private_or_public(address) for address in ("127.0.0.1", "::1", "10.0.0.1", "fd00::1", "8.8.8.8"))


async def test_a_name_that_moves_after_it_was_judged_is_not_followed(tmp_path: Path) -> None:
    serving, trust = certificates(tmp_path)
    asked: list[str] = []

    async def resolve(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return [HERE] if len(asked) == 1 else ["169.254.169.254"]

    async with receiver(serving) as host:
        assert (await poster(trust, resolve=resolve)(url(host), {}, b"{}")).is_taken
        assert asked == [NAME]  # once: the connection did not ask again
        with pytest.raises(FetchRefused, match="public internet"):
            await poster(trust, resolve=resolve)(url(host), {}, b"{}")
        assert host.connections == 1


async def test_plain_http_reaches_this_computer_and_no_other() -> None:
    async with receiver() as host:
        assert (await Poster()(host.url(), {}, b"{}")).is_taken
        for address in ("10.0.0.1", "8.8.8.8", "169.254.169.254"):
            with pytest.raises(FetchRefused, match="public internet"):
                await poster(None, address)(host.url(), {}, b"{}")
        assert host.connections == 1


async def test_a_receiver_that_leads_elsewhere_is_not_followed_and_says_no(tmp_path: Path) -> None:
    async with receiver() as host, receiver() as other:
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"):
            host.answers = [f"{status}\r\nlocation: {other.url()}"]
            posted = await Poster()(host.url(), {}, b"{}")
            assert not posted.is_taken and not posted.is_worth_repeating
        assert other.connections == 0


async def test_a_receiver_takes_neither_time_nor_memory_without_end() -> None:
    async def drip(stream: Any) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send(b"x: y\r\n")
            await anyio.sleep(0.02)

    async def endless(stream: Any) -> None:
        while b"{}" not in await stream.receive():
            pass
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await stream.send(b" " * 65536)

    async with receiver() as host:
        host.serve_with = drip
        with anyio.fail_after(5), pytest.raises(FetchRefused, match="did not answer within"):
            await Poster(patience=timedelta(seconds=0.3))(host.url(), {}, b"{}")
        host.serve_with = endless
        with anyio.fail_after(5):
            assert (await Poster()(host.url(), {}, b"{}")).is_taken  # its body is not read


async def test_what_is_said_of_a_receiver_in_trouble_is_its_host_alone(tmp_path: Path) -> None:
    serving, trust = certificates(tmp_path)
    async with receiver(serving) as host, receiver() as garbage:

        async def noise(stream: Any) -> None:
            await stream.send(b"220 mail.example.com ESMTP\r\n")

        garbage.serve_with = noise
        cases = [
            (poster(trust), url(host, "other.example.com", "/T0KEN")),
            (Poster(), garbage.url("/T0KEN?sig=S1GNATURE")),
            (Poster(), "http://localhost:9/T0KEN"),
            (poster(trust, "10.0.0.1"), url(host, path="/T0KEN")),
        ]
        for posts, where in cases:
            with pytest.raises(FetchRefused) as refused:
                await posts(where, {"authorization": "Bearer S1GNATURE"}, b"{}")
            assert "T0KEN" not in str(refused.value) and "S1GNATURE" not in str(refused.value)
