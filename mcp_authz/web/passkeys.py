"""WebAuthn ceremonies of one relying party: what a browser is asked, and what it answered; the only door to webauthn.

User verification is required in both (WebAuthn Level 3 section 5.8.6): whoever answers has shown the authenticator that
they are its owner. No attestation is asked for: which authenticator it is, is the person's own choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    options_to_json_dict,
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from mcp_authz import limits
from mcp_authz.accounts import NewPasskey, ShownPasskey
from mcp_authz.errors import SignatureRefused
from mcp_authz.passkey import Passkey
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import b64url, equal
from mcp_authz.rules.verdict import PasskeyProof

_REQUIRED: Final = UserVerificationRequirement.REQUIRED
_CREDENTIAL_BYTES: Final = 1023  # WebAuthn Level 3 section 4, credential id

# What a malformed answer makes the library raise, beside its own errors: it reads CBOR, JSON and points of curves.
_MALFORMED: Final = (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


class RelyingParty:
    """Who asks: its id is the host of the public URL, its origin is the public URL, exactly."""

    def __init__(self, public_url: str) -> None:
        self._id = urlsplit(public_url).hostname or ""
        self._origin = public_url

    def registration(
        self, person: PersonName, handle: bytes, known: Sequence[Passkey], challenge: bytes
    ) -> dict[str, Any]:
        """What the browser is asked to make a passkey with; an authenticator that has one of `known` makes none."""
        options = generate_registration_options(
            rp_id=self._id,
            rp_name="mcp-authz",
            user_name=person,
            user_id=handle,
            challenge=challenge,
            timeout=_milliseconds(),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED, require_resident_key=True, user_verification=_REQUIRED
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=one.credential) for one in known],
        )
        return options_to_json_dict(options)

    def registered(self, answer: Mapping[str, Any], challenge: bytes) -> NewPasskey:
        """The passkey that the browser made for this challenge.

        Raises:
            SignatureRefused: it did not, or not here, or without verifying its user.
        """
        try:
            credential = parse_registration_credential_json(dict(answer))
            _require_own_page(credential.response.client_data_json)
            made = verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._id,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except _MALFORMED as error:
            raise SignatureRefused(f"the passkey could not be registered: {_reason(error)}") from None
        if not 1 <= len(made.credential_id) <= _CREDENTIAL_BYTES:
            raise SignatureRefused("the passkey could not be registered: its credential id is too long")
        return NewPasskey(
            credential=made.credential_id, public_key=made.credential_public_key, sign_count=made.sign_count
        )

    def assertion(self, known: Sequence[Passkey], challenge: bytes) -> dict[str, Any]:
        """What the browser is asked to show a passkey with: one of `known`, or any that was made here."""
        options = generate_authentication_options(
            rp_id=self._id,
            challenge=challenge,
            timeout=_milliseconds(),
            allow_credentials=[PublicKeyCredentialDescriptor(id=one.credential) for one in known],
            user_verification=_REQUIRED,
        )
        return options_to_json_dict(options)

    def shown(self, answer: Mapping[str, Any], passkey: Passkey, challenge: bytes, handle: bytes) -> ShownPasskey:
        """The passkey signed this challenge just now, in this origin, and its user was verified.

        Raises:
            SignatureRefused: anything of it is not so.
        """
        try:
            credential = parse_authentication_credential_json(dict(answer))
            _require_own_page(credential.response.client_data_json)
            verified = verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._id,
                expected_origin=self._origin,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        except _MALFORMED as error:
            raise SignatureRefused(f"the passkey was not accepted: {_reason(error)}") from None
        named = credential.response.user_handle
        if not equal(verified.credential_id, passkey.credential) or (named and not equal(named, handle)):
            raise SignatureRefused("the passkey was not accepted: it is another person's")
        return ShownPasskey(passkey=passkey, sign_count=verified.new_sign_count)


def credential_of(answer: Mapping[str, Any]) -> bytes:
    """The credential id that an assertion names, before anything of it is believed.

    Raises:
        SignatureRefused: it is no assertion.
    """
    try:
        return parse_authentication_credential_json(dict(answer)).raw_id
    except _MALFORMED:
        raise SignatureRefused("this is no answer of a passkey") from None


def proof_of(answer: Mapping[str, Any], nonce: bytes) -> PasskeyProof:
    """The evidence in an assertion that `RelyingParty.shown` has verified."""
    credential = parse_authentication_credential_json(dict(answer))
    return PasskeyProof(
        credential=credential.raw_id,
        authenticator_data=credential.response.authenticator_data,
        client_data=credential.response.client_data_json,
        signature=credential.response.signature,
        nonce=nonce,
    )


def verify_kept(proof: PasskeyProof, public_key: bytes, challenge: bytes, *, public_url: str) -> None:
    """The passkey with this public key (COSE_Key) once signed this challenge on the page at `public_url`.

    Raises:
        SignatureRefused: it did not, or not there, or without verifying its user.
    """
    answer = {
        "id": b64url(proof.credential),
        "rawId": b64url(proof.credential),
        "type": "public-key",
        "response": {
            "authenticatorData": b64url(proof.authenticator_data),
            "clientDataJSON": b64url(proof.client_data),
            "signature": b64url(proof.signature),
        },
    }
    try:
        verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=urlsplit(public_url).hostname or "",
            expected_origin=public_url,
            credential_public_key=public_key,
            credential_current_sign_count=0,
            require_user_verification=True,
        )
        _require_own_page(proof.client_data)
    except _MALFORMED as error:
        raise SignatureRefused(f"the passkey's answer does not verify: {_reason(error)}") from None


def _require_own_page(client_data: bytes) -> None:
    if parse_client_data_json(client_data).cross_origin:
        raise SignatureRefused("the passkey was asked inside another site's page")


def _reason(error: Exception) -> str:
    """A sentence for the person; what the library says of foreign bytes is for nobody."""
    return "its user was not verified" if "verification is required" in str(error) else "it does not fit the question"


def _milliseconds() -> int:
    return int(limits.CHALLENGE_LIFETIME.total_seconds() * 1000)
