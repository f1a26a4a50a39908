"""Signatures are those of the Standard Webhooks specification, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules.webhook_signature import make_secret, read_secret, require_signature, signed_headers

# The example that the specification's own libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = datetime.fromtimestamp(1614265330, UTC)
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_signed_as_in_the_specifications_own_example() -> None:
    made = signed_headers(read_secret(SECRET), message_id=ID, at=AT, body=BODY)
    assert made == {"webhook-id": ID, "webhook-timestamp": "1614265330", "webhook-signature": SIGNED}
    received = require_signature(read_secret(SECRET), made, BODY, AT + timedelta(minutes=5))
    assert (received.id, received.sent_at) == (ID, AT)


def test_one_of_several_signatures_is_enough_so_that_a_secret_can_be_replaced() -> None:
    made = signed_headers(read_secret(SECRET), message_id=ID, at=AT, body=BODY)
    made["webhook-signature"] = f"v1,bm9uZQ== v1a,other {SIGNED}"
    require_signature(read_secret(SECRET), made, BODY, AT)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", "msg_other"),
        ("webhook-id", "msg.1614265330"),
        ("webhook-id", ""),
        ("webhook-timestamp", "1614265331"),
        ("webhook-timestamp", " 1614265330"),
        ("webhook-timestamp", "+1614265330"),
        ("webhook-timestamp", "01614265330"),
        ("webhook-timestamp", "1614265330.0"),
        ("webhook-timestamp", "9" * 400),
        ("webhook-signature", ""),
        ("webhook-signature", SIGNED.removeprefix("v1,")),
        ("webhook-signature", SIGNED.replace("v1,", "v1a,")),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,\u00e9"),
        ("webhook-signature", " ".join(["v1,AA=="] * 8 + [SIGNED])),
    ],
)
def test_what_was_changed_after_signing_is_refused(header: str, value: str) -> None:
    made = signed_headers(read_secret(SECRET), message_id=ID, at=AT, body=BODY)
    with pytest.raises(SignatureRefused):
        require_signature(read_secret(SECRET), {**made, header: value}, BODY, AT)


@pytest.mark.parametrize("off", [timedelta(minutes=5, seconds=1), timedelta(minutes=-5, seconds=-1)])
def test_a_message_counts_for_five_minutes(off: timedelta) -> None:
    made = signed_headers(read_secret(SECRET), message_id=ID, at=AT, body=BODY)
    with pytest.raises(SignatureRefused, match="just now"):
        require_signature(read_secret(SECRET), made, BODY, AT + off)


@pytest.mark.parametrize(
    "text", ["", "whsec_", SECRET.removeprefix("whsec_"), "whsec_AAAA", "whsec_!!!!" + "A" * 40, SECRET + "\n" * 2]
)
def test_what_is_no_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InputError) as refused:
        read_secret(text)
    assert len(text) < 7 or text not in str(refused.value)


def test_a_secret_is_not_printed() -> None:
    key = read_secret(make_secret(bytes(range(32))))
    assert key.key == bytes(range(32)) and repr(key) == "<redacted>"
