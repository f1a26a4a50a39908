"""A form as RFC 6749 appendix B describes it, read so that no parameter can have two values."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from mcp_authz import limits
from mcp_authz.oauth.refusal import Refusal

Form = dict[str, str]

_FIELDS: Final = 32


async def read_form(request: Request) -> Form:
    """Return the parameters of a form body; one without a value counts as left out (RFC 6749 section 3.2).

    Raises:
        Refusal: the body is no form, too long, or has a parameter twice.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise Refusal("invalid_request", "send the parameters as application/x-www-form-urlencoded")
    return parse_form(await _bounded_body(request))


def parse_form(body: bytes) -> Form:
    """Return the parameters of this form.

    Raises:
        Refusal: it is no form, or has a parameter twice.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_FIELDS, errors="strict"
        )
    except ValueError:  # also text that is not ASCII, or not UTF-8 once decoded
        raise Refusal("invalid_request", "the body is not a form") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Refusal("invalid_request", "a parameter occurs more than once")
    return {name: value for name, value in form.items() if value}


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.FORM_BYTES:
            raise Refusal("invalid_request", "the body is too long", status=413)
    return bytes(body)
