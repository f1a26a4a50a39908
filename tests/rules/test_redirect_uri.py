"""Redirect URIs: which may be registered, which was meant, and where that is for people."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules.redirect_uri import (
    SCHEMES,
    Place,
    is_loopback,
    is_registered,
    place,
    require_registrable,
    require_scheme,
)

GOOD = {
    "https://claude.ai/api/mcp/auth_callback": ("web", "claude.ai"),
    "https://vscode.dev/redirect": ("web", "vscode.dev"),
    "https://chat.example.com:8443/cb": ("web", "chat.example.com:8443"),
    "https://xn--e1afmkfd.example/cb": ("web", "xn--e1afmkfd.example"),
    "https://example.com": ("web", "example.com"),
    "https://example.com/cb?tenant=a%2Fb&next": ("web", "example.com"),
    "https://localhost.evil.com/cb": ("web", "localhost.evil.com"),  # by https it is a host like any other
    "http://127.0.0.1/callback": ("loopback", "this computer"),
    "http://127.0.0.1:33418/": ("loopback", "this computer"),
    "http://127.0.0.1": ("loopback", "this computer"),
    "http://localhost/callback": ("loopback", "this computer"),
    "http://[::1]:3000/callback": ("loopback", "this computer"),
    "cursor://anysphere.cursor-retrieval/oauth/callback": ("app", "cursor"),
    "vscode-insiders://vscode.github-authentication/did-authenticate": ("app", "vscode-insiders"),
    "com.example.app:/callback": ("app", "com.example.app"),
    "com.example.app:///callback": ("app", "com.example.app"),
}

TRICKS = [
    "",
    " https://example.com/cb",
    "https://example.com/cb\n",
    "https://example.com/cb\x00",
    "https://example.com/\tcb",
    "https://example.com/cb#fragment",
    "https://example.com/cb#",
    "https://user@example.com/cb",
    "https://user:password@example.com/cb",
    "https://example.com@evil.com/cb",
    "https://example.com:443@evil.com/cb",
    "http://127.0.0.1@evil.com/cb",
    "http://127.0.0.1:80@evil.com/cb",
    "http://localhost@evil.com/cb",
    "cursor://user@host/cb",
    "https://evil.com\\@example.com/cb",
    "https://example.com\\.evil.com/cb",
    "https:\\\\example.com/cb",
    "https:/example.com/cb",
    "https:example.com/cb",
    "https:///example.com/cb",
    "//example.com/cb",
    "/cb",
    "cb",
    "https://example.com/a/../cb",
    "https://example.com/./cb",
    "https://example.com/..",
    "https://example.com/%2e%2e/cb",
    "https://example.com/%2E./cb",
    "https://example.com/a%2fb",
    "https://example.com/a%5Cb",
    "https://example.com//evil.com/cb",
    "https://example.com/cb%0d%0aset-cookie:a",
    "https://example.com/cb?a=%00",
    "https://example.com/%zz",
    "https://example.com/%",
    "https://example.com/[x]",
    "https://Example.com/cb",
    "HTTPS://example.com/cb",
    "https://example.com./cb",
    "https://example..com/cb",
    "https://.example.com/cb",
    "https://-a.example.com/cb",
    "https://example.com:/cb",
    "https://example.com:0/cb",
    "https://example.com:0443/cb",
    "https://example.com:65536/cb",
    "https://example.com:999999/cb",
    "https://example.com:4x3/cb",
    "https://example.com%2eevil.com/cb",
    "https://ex%61mple.com/cb",
    "https://пример.com/cb",
    "https://ex\u0430mple.com/cb",
    "https://example\u3002com/cb",
    "https://\uff45xample.com/cb",
    "https://exam\u200dple.com/cb",
    "https://localhost/cb",
    "https://intranet/cb",
    "https://127.0.0.1/cb",
    "https://10.0.0.1/cb",
    "https://2130706433/cb",
    "https://0x7f.1/cb",
    "https://[::1]/cb",
    "https://*.example.com/cb",
    "http://example.com/cb",
    "http://localhost.evil.com/cb",
    "http://localhost./cb",
    "http://LOCALHOST/cb",
    "http://127.0.0.1.evil.com/cb",
    "http://127.0.0.2/cb",
    "http://127.1/cb",
    "http://0.0.0.0/cb",
    "http://[::ffff:127.0.0.1]/cb",
    "http://[0:0:0:0:0:0:0:1]/cb",
    "http://127.0.0.1:0/cb",
    "http://127.0.0.1:070/cb",
    "http://127.0.0.1:65536/cb",
    "http://192.168.0.1/cb",
    "javascript:alert(1)",
    "javascript://example.com/%0aalert(1)",
    "JavaScript:alert(1)",
    "data:text/html,x",
    "data:/text",
    "file:///etc/passwd",
    "blob:https://example.com/x",
    "about:blank",
    "vbscript:x",
    "ws://example.com/cb",
    "mailto:a@example.com",
    "intent://x/cb",
    "view-source:https://example.com/",
    "unknown://host/cb",
    "com.example.app:callback",
    "cursor://",
    "cursor:",
    "com..app:/cb",
    ".app:/cb",
    "cursor.:/cb",
    "urn:ietf:wg:oauth:2.0:oob",
    "https://example.com/cb?code=mine",
    "https://example.com/cb?a=1&state=x",
    "https://example.com/cb?%63ode=mine",
    "https://example.com/cb?iss=https%3A%2F%2Fevil.com",
    "https://example.com/cb?error=access_denied",
]


@pytest.mark.parametrize("uri", GOOD)
def test_where_well_known_clients_are_answered_can_be_registered_and_said_in_words(uri: str) -> None:
    assert require_registrable(uri, SCHEMES) == uri
    kind, host = GOOD[uri]
    assert place(uri) == Place(kind=kind, host=host)  # type: ignore[arg-type]


@pytest.mark.parametrize("uri", TRICKS)
def test_what_can_be_read_in_two_ways_or_leads_elsewhere_is_not_registered(uri: str) -> None:
    with pytest.raises(InputError):
        require_registrable(uri, SCHEMES)


def test_a_uri_is_as_long_as_its_bound_and_no_longer() -> None:
    longest = "https://example.com/".ljust(limits.REDIRECT_URI, "a")
    assert require_registrable(longest, ()) == longest
    with pytest.raises(InputError, match="longer"):
        require_registrable(longest + "a", ())


def test_a_scheme_without_a_dot_has_to_be_configured() -> None:
    assert require_registrable("myapp://cb", {"myapp"})
    with pytest.raises(InputError, match="schemes"):
        require_registrable("myapp://cb", SCHEMES)


@pytest.mark.parametrize("scheme", ["javascript", "data", "file", "https", "http", "Cursor", "a b", "", "a" * 65, "1a"])
def test_what_a_browser_acts_on_by_itself_is_no_scheme_of_an_application(scheme: str) -> None:
    with pytest.raises(InputError):
        require_scheme(scheme)
    with pytest.raises(InputError):
        require_registrable(f"{scheme}://cb", {scheme})


def test_every_default_scheme_is_one() -> None:
    assert tuple(map(require_scheme, SCHEMES)) == SCHEMES


@pytest.mark.parametrize(
    "asked",
    [
        "https://example.com/cb/",
        "https://example.com/cb?",
        "https://example.com/cb?x=1",
        "https://example.com/cb#",
        "https://example.com/CB",
        "https://example.com:443/cb",
        "https://example.com/cb%20",
        "https://example.com/%63b",
        "https://example.com/x/../cb",
        "https://evil.com/cb",
        "https://example.com@evil.com/cb",
        "https://example.com/cb https://evil.com/",
        "http://example.com/cb",
        "HTTPS://example.com/cb",
        "",
    ],
)
def test_away_from_loopback_only_the_very_same_text_is_registered(asked: str) -> None:
    assert is_registered(["https://example.com/cb"], "https://example.com/cb")
    assert not is_registered(["https://example.com/cb"], asked)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_on_loopback_the_port_may_vary_and_nothing_else(host: str) -> None:
    known = [f"http://{host}:3000/cb?x=1"]
    assert is_registered(known, f"http://{host}:51234/cb?x=1") and is_registered(known, f"http://{host}/cb?x=1")
    for asked in (
        f"http://{host}:3000/cb",
        f"http://{host}:3000/cb?x=2",
        f"http://{host}:3000/cb/?x=1",
        f"http://{host}:0/cb?x=1",
        f"http://{host}:65536/cb?x=1",
        f"http://{host}:/cb?x=1",
        f"http://{host}:3000@evil.com/cb?x=1",
        f"http://{host}:3000.evil.com/cb?x=1",
        f"http://user@{host}:3000/cb?x=1",
        f"http://{host}:3000/cb?x=1#",
        f"http://{host}:3000/cb?x=1\n",
        f"https://{host}:3000/cb?x=1",
        f"http:{host}:3000/cb?x=1",
    ):
        assert not is_registered(known, asked), asked


def test_three_names_of_this_computer_are_three_hosts() -> None:
    names = ("127.0.0.1", "[::1]", "localhost")
    for one in names:
        for other in names:
            assert is_registered([f"http://{one}/cb"], f"http://{other}:1/cb") == (one == other)


def test_an_application_s_uri_has_no_port_to_vary() -> None:
    assert is_registered(["cursor://host/cb"], "cursor://host/cb")
    assert not is_registered(["cursor://host/cb"], "cursor://host:1/cb")


_TEXT = st.text(alphabet=st.sampled_from("htps:/@\\.?#%=&1270localvexmp[]ABZ \u0430\u3002"), max_size=60)


@given(st.sampled_from(["", "https://", "http://127.0.0.1", "http://localhost", "cursor://", "http://[::1]:"]), _TEXT)
def test_whatever_can_be_registered_is_read_alike_by_another_reader(start: str, rest: str) -> None:
    uri = start + rest
    try:
        require_registrable(uri, SCHEMES)
    except InputError:
        return
    parts = urlsplit(uri)
    same = uri.removesuffix("?").replace(":///", ":/", 1)  # an empty authority is none, for this reader
    assert uri.isascii() and parts.geturl() == same and parts.username is None and not parts.fragment
    where = place(uri)
    if where.kind == "web":
        assert parts.scheme == "https" and parts.netloc == where.host and "." in (parts.hostname or "")
    elif where.kind == "loopback":
        assert parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    else:
        assert parts.scheme == where.host


@given(st.sampled_from(sorted(GOOD)), _TEXT)
def test_what_is_not_on_loopback_is_registered_as_the_same_text_or_not_at_all(known: str, asked: str) -> None:
    if is_registered([known], asked):
        assert asked == known or (is_loopback(known) and is_loopback(asked))
