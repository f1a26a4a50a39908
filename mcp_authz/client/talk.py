"""A talk over HTTP as a generator: it yields what it asks and is given the answers; async or not is for who carries it.

Redirects are not followed: what is asked here carries proofs of who asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2

from mcp_authz.client.door import NoAnswer

T = TypeVar("T")

_SECONDS: Final = 10.0  # for each question; a gateway that is there answers at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question: a GET, or a POST of a form or of a JSON object."""

    url: str
    form: Mapping[str, str] | None = field(default=None, repr=False)
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def request(self, http: httpx2.Client | httpx2.AsyncClient) -> httpx2.Request:
        """The question as a request of this client."""
        headers = {"accept": "application/json", **self.headers}
        method = "GET" if self.form is None and self.json is None else "POST"
        return http.build_request(method, self.url, data=self.form, json=self.json, headers=headers)


Talk = Generator[Ask, httpx2.Response, T]


async def carry(http: httpx2.AsyncClient, talk: Talk[T]) -> T:
    """Return what the talk comes to.

    Raises:
        NoAnswer: nobody answers.
    """
    try:
        ask = next(talk)
        while True:
            ask = talk.send(await http.send(ask.request(http), follow_redirects=False))
    except StopIteration as done:
        result: T = done.value
        return result
    except httpx2.HTTPError:
        raise _silence(ask) from None


def carry_blocking(http: httpx2.Client, talk: Talk[T]) -> T:
    """Return what the talk comes to; the thread waits for it.

    Raises:
        NoAnswer: nobody answers.
    """
    try:
        ask = next(talk)
        while True:
            ask = talk.send(http.send(ask.request(http), follow_redirects=False))
    except StopIteration as done:
        result: T = done.value
        return result
    except httpx2.HTTPError:
        raise _silence(ask) from None


@asynccontextmanager
async def line(url: str, verify: SSLContext | None) -> AsyncIterator[httpx2.AsyncClient]:
    """HTTP for one talk with the gateway at `url`; it has nothing of any other client's headers and cookies."""
    trust = True if verify is None else verify
    async with httpx2.AsyncClient(verify=trust, timeout=_SECONDS, trust_env=_by_proxy(url)) as http:
        yield http


@contextmanager
def blocking_line(url: str, verify: SSLContext | None) -> Iterator[httpx2.Client]:
    """HTTP for one talk, as `line`, for a thread."""
    trust = True if verify is None else verify
    with httpx2.Client(verify=trust, timeout=_SECONDS, trust_env=_by_proxy(url)) as http:
        yield http


def json_object(answer: httpx2.Response) -> dict[str, Any] | None:
    """The JSON object in the answer; None when there is something else."""
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _by_proxy(url: str) -> bool:
    """Whether the environment's proxy is used: it sees nothing of what goes by https, and of http everything."""
    return urlsplit(url).scheme == "https"


def _silence(ask: Ask) -> NoAnswer:
    parts = urlsplit(ask.url)
    return NoAnswer(f"no gateway answers at {parts.scheme}://{parts.netloc}")
