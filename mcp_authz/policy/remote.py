"""How a policy decision point elsewhere is asked: one bounded question over HTTP, with one answer that is its own.

Connections are kept and shared by all calls. One that has something to say when nothing was asked is closed: what
follows an answer would else count as the answer to the next question, which may be about somebody else. The HTTP
client of the other edges hands such bytes on, so this one is aiohttp's.

Certificates are those that the system trusts, redirects are not followed, proxies of the environment not used, and
time and size are bounded for the whole of it. Nothing that was answered is kept: who is not asked does not permit.
What an error says is for the operator; nothing of question or answer is in it, since both may hold arguments.
"""

from __future__ import annotations

import io
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import anyio

from mcp_authz import limits
from mcp_authz.errors import InputError, PolicyError
from mcp_authz.fetching import system_trust
from mcp_authz.rules import strict_json
from mcp_authz.rules.circuit import Circuit, Period

log = logging.getLogger(__name__)

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_AWAY: Final = frozenset({429, 502, 503, 504})  # whoever asks and whatever is asked
_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)
_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "identity",  # so that a bound on bytes is a bound on memory
    "content-type": "application/json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pdp:
    """How a policy decision point is asked."""

    timeout: timedelta = limits.PDP_TIME  # for one question, connecting included
    token: str | None = field(default=None, repr=False)  # shown as a bearer token (RFC 6750 section 2.1)
    trust: ssl.SSLContext | None = field(default=None, repr=False)  # None: the certificates that the system trusts


@dataclass(frozen=True, slots=True, kw_only=True)
class PdpStatus:
    """What became of the questions so far, for people who look after the gateway."""

    asked: int
    failed: int  # of those asked: without an answer that could be used
    refused: int  # not asked, because it was away or too many questions waited
    away: bool
    trouble: str  # the last one; empty after a good answer


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """An answer with status 200, its body whole."""

    body: bytes = field(repr=False)
    request_id: str | None  # the answer's `X-Request-ID`


class Away(PolicyError):
    """The policy decision point does not answer, whatever it is asked."""


class NotThere(PolicyError):
    """There is nothing at that URL."""


class DecisionPoint:
    """One policy decision point, asked by all calls at once."""

    def __init__(self, place: str, pdp: Pdp, *, ticks: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked yet.

        Raises:
            PolicyError: the token is none that can be shown.
        """
        if pdp.token is not None and not _VISIBLE.fullmatch(pdp.token):
            raise PolicyError(f"{place}: its token is empty, or has a space or a character beyond ASCII in it")
        self._place = place  # what people know it by
        self._pdp = pdp
        self._ticks = ticks  # seconds that only go on
        self._http: aiohttp.ClientSession | None = None
        self._circuit = Circuit()
        self._under_way = 0
        self._asked = self._failed = self._refused = 0
        self._trouble = ""

    @property
    def status(self) -> PdpStatus:
        """What became of the questions so far."""
        return PdpStatus(
            asked=self._asked,
            failed=self._failed,
            refused=self._refused,
            away=self._circuit.is_open,
            trouble=self._trouble,
        )

    async def aclose(self) -> None:
        """Its connections are closed; the next question would open them anew."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    @asynccontextmanager
    async def question(self) -> AsyncIterator[None]:
        """One question may be asked within this context, in the time there is; how it ends counts for the next ones.

        Raises:
            PolicyError: it may not, or there was no answer that can be used; the message names the decision point.
        """
        self._require_room()
        period, self._circuit = self._circuit.period, self._circuit.asked()
        self._under_way += 1
        self._asked += 1
        try:
            with anyio.fail_after(self._pdp.timeout.total_seconds()):
                yield
        except TimeoutError:
            seconds = self._pdp.timeout.total_seconds()
            raise self._away(period, f"did not answer whole within {seconds:g} seconds") from None
        except Away as error:
            raise self._away(period, str(error)) from None
        except PolicyError as error:  # it does answer: what is wrong may be with this one question
            self._back(period, str(error))
            self._failed += 1
            raise PolicyError(f"{self._place}: {error}") from None
        except BaseException:  # nobody waits for the answer any more
            self._circuit = self._circuit.abandoned(period)
            raise
        else:
            self._back(period, "")
        finally:
            self._under_way -= 1

    async def post(self, url: str, body: Mapping[str, Any], **headers: str) -> HttpAnswer:
        """Return the answer to this JSON object; only within `question`.

        Raises:
            PolicyError: the answer has another status than 200, is no JSON, too long or broken off; `Away` where there
                is none for anybody, `NotThere` where nothing is at `url`.
        """
        try:
            raw = strict_json.dump(body)
        except InputError as error:
            raise PolicyError(f"the input cannot be sent: {error}") from None
        return await self._answer("POST", url, raw, headers)

    async def get(self, url: str) -> HttpAnswer:
        """Return the document at `url`; only within `question`, and it raises as `post` does."""
        return await self._answer("GET", url, None, {})

    async def _answer(self, method: str, url: str, raw: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
        try:
            try:
                return await self._exchange(method, url, raw, headers)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                # Most likely a kept connection that was just being closed; a question changes nothing there.
                return await self._exchange(method, url, raw, headers)
        except aiohttp.ClientConnectorError as error:
            raise Away(f"cannot be reached ({type(error).__name__})") from None
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise PolicyError(f"gave no whole answer ({type(error).__name__})") from None

    async def _exchange(self, method: str, url: str, raw: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
        http, data = self._session(), None if raw is None else io.BytesIO(raw)
        async with http.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
            _require_usable(answer)
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > limits.PDP_ANSWER_BYTES:
                    raise PolicyError(f"its answer is longer than {limits.PDP_ANSWER_BYTES} bytes")
            return HttpAnswer(body=bytes(body), request_id=answer.headers.get("x-request-id"))

    def _session(self) -> aiohttp.ClientSession:
        """The client with its connections; made at the first question, since it belongs to the loop that runs."""
        if self._http is None:
            credential = {} if self._pdp.token is None else {"authorization": f"Bearer {self._pdp.token}"}
            self._http = aiohttp.ClientSession(
                connector=_Connections(limit=limits.PDP_CONNECTIONS, ssl=self._pdp.trust or system_trust()),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS | credential,
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
            )
        return self._http

    def _require_room(self) -> None:
        now = self._ticks()
        if not self._circuit.admits(now):
            self._refused += 1
            wait = self._circuit.remaining(now).total_seconds()
            told = f"it is asked again in {wait:.1f} s" if wait else "another call is finding out whether it is back"
            raise PolicyError(f"{self._place}: was not asked, for it {self._trouble}; {told}")
        if self._under_way >= limits.PDP_ASKING:
            self._refused += 1
            raise PolicyError(f"{self._place}: was not asked, for {self._under_way} questions wait for it already")

    def _away(self, period: Period, why: str) -> PolicyError:
        """The error for one failure; enough of them in a row, and it is not asked for a while."""
        before, self._circuit = self._circuit, self._circuit.failed(period, self._ticks())
        self._trouble = why
        self._failed += 1
        if self._circuit.is_open and not before.is_open:
            log.error("%s: %s; calls are denied until it is back", self._place, why)
        return PolicyError(f"{self._place}: {why}")

    def _back(self, period: Period, trouble: str) -> None:
        """It answered, if only with something that is no answer to that question."""
        if period != self._circuit.period:
            return
        before, self._circuit = self._circuit, self._circuit.answered(period)
        self._trouble = trouble
        if before.is_open:
            log.warning("%s: is back", self._place)


class _Connections(aiohttp.TCPConnector):
    """Connections of which none is used again that has said something meanwhile."""

    async def _get(self, key: Any, traces: Any) -> Any:
        while (kept := await super()._get(key, traces)) is not None:
            if kept.protocol is not None and not kept.protocol.should_close:
                return kept
            kept.close()
        return None


def _require_usable(answer: aiohttp.ClientResponse) -> None:
    """The answer has status 200 and an uncompressed JSON body, once this returns."""
    if answer.status in _AWAY:
        raise Away(f"answered with HTTP {answer.status}")
    if answer.status == 404:
        raise NotThere("answered with HTTP 404; look at the URL")
    if answer.status in (401, 403):
        raise PolicyError(f"refuses the gateway's credential (HTTP {answer.status}); look at `pdp.token_file`")
    if 300 <= answer.status < 400:
        raise PolicyError(f"leads elsewhere (HTTP {answer.status}), which is not followed; name the URL that answers")
    if answer.status != 200:
        raise PolicyError(f"answered with HTTP {answer.status}")
    if answer.headers.getall("content-encoding", ["identity"]) != ["identity"]:
        raise PolicyError("its answer is compressed, which was not asked for")
    kinds = [one.partition(";")[0].strip().lower() for one in answer.headers.getall("content-type", [])]
    if kinds != ["application/json"]:
        raise PolicyError("its answer has another content type than application/json")


def json_object(answer: HttpAnswer) -> strict_json.JsonObject:
    """Return the one JSON object that the answer is.

    Raises:
        PolicyError: it is something else, or could be read in two ways.
    """
    try:
        return strict_json.parse_object(
            answer.body, max_bytes=limits.PDP_ANSWER_BYTES, max_depth=limits.PDP_ANSWER_DEPTH
        )
    except InputError as error:
        raise PolicyError(f"its answer cannot be read: {error}") from None


def pdp_url(url: str, scheme: str) -> str:
    """Return the http or https URL in what an operator wrote, with or without `scheme+` before it.

    Raises:
        PolicyError: it is none that may be asked. Plain http is for this computer, unless it is spelt `opa+http`.
    """
    bare = url.removeprefix(f"{scheme}+")
    try:
        if not _VISIBLE.fullmatch(bare):
            raise ValueError
        parts = urlsplit(bare)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise PolicyError(f"the URL of the {scheme} engine is none") from None
    if parts.username is not None or parts.password is not None:
        raise PolicyError(f"the URL of the {scheme} engine has a password in it; set `pdp.token_file` instead")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise PolicyError(f"`{url}` is no URL to ask: write {scheme}+https://HOST/..., without query and fragment")
    if parts.scheme == "http" and host not in LOOPBACK and not (scheme == "opa" and bare != url):
        raise PolicyError(f"`{url}`: plain http is for an engine on this computer; use {scheme}+https")
    return bare
