"""Authorization requests, read in two steps, and the URL of the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.authorization import AuthorizationRequest
from mcp_authz.errors import InputError
from mcp_authz.rules.authorization_request import RequestRefused, answer_url, read_request, read_target
from mcp_authz.rules.scope import Scope

ISSUER = "https://gate.example.com"
RESOURCE = f"{ISSUER}/mcp"
BACK = "http://127.0.0.1:3000/callback"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636 appendix B
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def query(**changes: str | None) -> str:
    parameters = {
        "response_type": "code",
        "client_id": "https://app.example.com/client.json",
        "redirect_uri": BACK,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "resource": RESOURCE,
        "state": "a state",
        **changes,
    }
    return urlencode({name: value for name, value in parameters.items() if value is not None})


def read(**changes: str | None) -> AuthorizationRequest:
    return read_request(read_target(query(**changes)), redirect_uri=BACK, resource=RESOURCE)


def error(**changes: str | None) -> str:
    with pytest.raises(RequestRefused) as refused:
        read(**changes)
    assert str(refused.value)
    return refused.value.error


def test_a_request_of_a_stock_client_says_what_it_asks_for() -> None:
    assert read(scope="files:read pr:write") == AuthorizationRequest(
        client="https://app.example.com/client.json",  # type: ignore[arg-type]
        redirect_uri=BACK,
        challenge=CHALLENGE,
        state="a state",
        scope=frozenset({Scope("files:read"), Scope("pr:write")}),
    )


def test_everything_that_can_be_asked_is_read() -> None:
    asked = read(
        scope="files:read openid offline_access mcp:connect",
        prompt="login consent",
        max_age="300",
        dpop_jkt=THUMBPRINT,
        requested_actor="agent:coder",
        response_mode="query",
        state=None,
        nonce="unknown parameters are passed over",
    )
    assert (
        asked.scope == frozenset({Scope("files:read")}) and asked.prompt == {"login", "consent"} and asked.state is None
    )
    assert asked.max_age == timedelta(minutes=5) and asked.confirmation == THUMBPRINT and asked.actor == "coder"


@pytest.mark.parametrize(
    "scope", [None, "", "mcp:connect", "openid profile email offline_access", "openid mcp:connect"]
)
def test_who_asks_for_nothing_of_ours_leaves_it_to_the_person(scope: str | None) -> None:
    assert read(scope=scope).scope is None


@pytest.mark.parametrize("prompt", ["select_account", "create", None, ""])
def test_a_prompt_that_means_nothing_here_is_passed_over(prompt: str | None) -> None:
    assert read(prompt=prompt).prompt == frozenset()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": ""}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_type": "Code"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "A"}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
        ({"code_challenge": "!" * 43}, "invalid_request"),
        ({"resource": "https://other.example.com/mcp"}, "invalid_target"),
        ({"resource": RESOURCE + "/"}, "invalid_target"),
        ({"resource": RESOURCE.upper()}, "invalid_target"),
        ({"request": "e30."}, "request_not_supported"),
        ({"request_uri": "https://evil.com/"}, "request_uri_not_supported"),
        ({"scope": 'files:"read"'}, "invalid_scope"),
        ({"scope": "files::read"}, "invalid_scope"),
        ({"scope": "files:re*"}, "invalid_scope"),
        ({"scope": "  files:read"}, "invalid_scope"),
        ({"scope": " ".join(f"s{n}" for n in range(limits.SCOPES + 1))}, "invalid_scope"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "everything"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "86401"}, "invalid_request"),
        ({"max_age": "1.5"}, "invalid_request"),
        ({"max_age": "01"}, "invalid_request"),
        ({"max_age": "\u0661"}, "invalid_request"),
        ({"dpop_jkt": "short"}, "invalid_request"),
        ({"requested_actor": "coder"}, "invalid_request"),
        ({"requested_actor": "agent:"}, "invalid_request"),
        ({"requested_actor": "agent:cursor@alice"}, "invalid_request"),
        ({"requested_actor": "user:alice"}, "invalid_request"),
    ],
)
def test_the_client_hears_what_is_wrong_by_its_code(changes: dict[str, Any], code: str) -> None:
    assert error(**changes) == code


def test_a_resource_that_is_left_out_is_ours() -> None:
    assert read(resource=None).challenge == CHALLENGE


def test_max_age_may_be_nothing_and_a_day() -> None:
    assert read(max_age="0").max_age == timedelta() and read(max_age="86400").max_age == timedelta(days=1)


@pytest.mark.parametrize("twice", ["client_id", "redirect_uri", "state", "resource", "scope", "code_challenge", "x"])
def test_a_parameter_that_stands_twice_is_for_the_page_to_say(twice: str) -> None:
    for pair in (f"{twice}=a", f"{twice}=", twice, f"%{ord(twice[0]):02x}{twice[1:]}=a"):
        with pytest.raises(InputError, match="twice"):
            read_target(f"{query(x='1', scope='pr')}&{pair}")


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "client_id=",
        "redirect_uri=https%3A%2F%2Fexample.com",
        "client_id=a%00b",
        "client_id=a%0d%0ab",
        "client_id=%ff",
        "client_id=%ed%a0%80",
        "client_id=%zz",
        "client_id=%2",
        "client_id=a b",
        "client_id=a\nb",
        "client_id=é",
        "client_id=%C3%A9",
        f"client_id={'a' * (limits.METADATA_URL + 1)}",
        f"client_id=a&state={'a' * (limits.STATE + 1)}",
        "client_id=a&state=%C3%A9",
        f"client_id=a&x={'a' * limits.AUTHORIZATION_QUERY}",
    ],
)
def test_what_is_malformed_before_the_client_is_known_is_for_the_page_to_say(broken: str) -> None:
    with pytest.raises(InputError):
        read_target(broken)


def test_a_parameter_without_a_value_is_as_if_it_were_not_there() -> None:
    target = read_target("client_id=a&redirect_uri=&state=&&x")
    assert (target.redirect_uri, target.state, dict(target.parameters)) == (None, None, {"client_id": "a"})


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://example.com/cb", "https://example.com/cb?"),
        ("https://example.com", "https://example.com?"),
        ("https://example.com/cb?tenant=a%2Fb", "https://example.com/cb?tenant=a%2Fb&"),
        ("https://example.com/cb?", "https://example.com/cb?"),
        ("https://example.com/cb?a&", "https://example.com/cb?a&"),
        ("com.example.app:/cb", "com.example.app:/cb?"),
    ],
)
def test_the_answer_is_added_to_the_redirect_uri_as_it_is(uri: str, expected: str) -> None:
    assert answer_url(uri, issuer=ISSUER, state="s", code="c") == (
        f"{expected}code=c&state=s&iss=https%3A%2F%2Fgate.example.com"
    )


def test_an_error_is_said_with_its_description_and_no_code() -> None:
    url = answer_url(BACK, issuer=ISSUER, state=None, error="invalid_scope", description='no "x" \\ é\n')
    assert parse_qs(urlsplit(url).query) == {
        "error": ["invalid_scope"],
        "error_description": ["no 'x' ' ''"],
        "iss": [ISSUER],
    }


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
def test_a_client_gets_its_state_back_as_it_was(state: str) -> None:
    target = read_target(query(state=state))
    url = answer_url(BACK, issuer=ISSUER, state=target.state, code="c")
    assert dict(parse_qsl(urlsplit(url).query))["state"] == state and not urlsplit(url).fragment
    assert url.isascii() and url.isprintable() and " " not in url


@given(st.text())
def test_any_text_is_a_target_or_an_input_error(text: str) -> None:
    try:
        read_target(text)
    except InputError:
        return
