"""Every error this project raises: one stable code, one fixed text for the caller, one reason for the operator."""

from __future__ import annotations

from typing import ClassVar


class AuthzError(Exception):
    """Something is not what it claims to be, or cannot be done.

    `code` is stable and may be shown to callers; the message is for the operator's log and never holds a secret.
    """

    code: ClassVar[str] = "error"


class InputError(AuthzError):
    """Bytes or values from outside that break a rule of their format."""

    code = "invalid_input"


class KeyRefused(AuthzError):
    """A public or private key that is malformed, of small order, or of the wrong type."""

    code = "key_refused"


class SignatureRefused(AuthzError):
    """A signed object whose form, algorithm, type or signature is not what its slot demands."""

    code = "signature_refused"


class FetchRefused(AuthzError):
    """Something at a URL from outside that may not be fetched, cannot be fetched, or is not what it should be."""

    code = "fetch_refused"


class TokenRefused(AuthzError):
    """An access token that was issued here, but what it stands on has ended or was revoked: a new one may help."""

    code = "invalid_token"


class ScopeError(AuthzError):
    """Text that is not a scope, or a template that the arguments cannot fill."""

    code = "scope_refused"


class ConstraintError(AuthzError):
    """An argument constraint that is malformed, of an unknown type, or nested too deeply."""

    code = "constraint_refused"


class DelegationError(AuthzError):
    """A chain or a link that asks for more than was given, or does not hang together."""

    code = "delegation_refused"


class ConfigError(AuthzError):
    """A configuration that cannot be used; the message says which key, and how to set it."""

    code = "config"


class PolicyError(AuthzError):
    """A policy that cannot be loaded, or a decision that could not be made."""

    code = "policy"


class StoreError(AuthzError):
    """The store cannot be opened, read or written; nothing was changed."""

    code = "store_unavailable"


class StoreInDoubt(StoreError):
    """A commit failed in such a way that nobody can say yet whether it was one."""


class StoreUpgraded(StoreError):
    """A newer version has changed the tables since this process opened them; its message may be shown to callers."""

    code = "store_upgraded"

    def __init__(self) -> None:
        super().__init__("the database was upgraded by a newer mcp-authz; restart this process")


class NotFound(AuthzError):
    """The named thing does not exist, or is not the caller's to see."""

    code = "not_found"


class Conflict(AuthzError):
    """The thing exists already, or is in a state from which this step does not lead on."""

    code = "conflict"


class DownstreamError(AuthzError):
    """A tool server that cannot be reached, or whose answer is no answer."""

    code = "downstream_unavailable"

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent  # whether the call may have reached the server: then its outcome is unknown


class DownstreamRefusal(AuthzError):
    """A JSON-RPC error that a tool server answered; passed on as it is.

    Attributes:
        rpc_code: the JSON-RPC error code.
        message: the error's message.
        data: the error's data, or None.
    """

    code = "downstream_error"

    def __init__(self, rpc_code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code
        self.message = message
        self.data = data
