"""What the API server's answers mean to us. Whether to try again is decided by type, never by reading a message.

ApiError
├── Absent        404: not there; for a delete that is success
├── Conflict      409: someone was faster; look again
├── Expired       410: the list or watch must start anew
├── Refused       400, 422, 500 of a malformed apply: stays wrong until somebody changes something
│   └── Forbidden 403: a missing permission, or a quota
│       └── Ending 403: the namespace is being deleted, and takes nothing new
└── Unavailable   429, 5xx, no answer: try again, not before ``retry_after_s``
"""

import json
from typing import Final

TYPED_PATCH_FAILED: Final = "failed to create typed patch object"  # a 500 that no retry cures (duplicate list-map keys)


class ApiError(Exception):
    """The API server did not do what was asked. ``status`` is the HTTP status, 0 without an answer."""

    expected = True  # no traceback in the log: the message says it all

    def __init__(self, what: str, status: int, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{what}: {status} {reason}: {message}" if status else f"{what}: {message}")
        self.what, self.status, self.reason, self.message = what, status, reason, message
        self.retry_after_s = retry_after_s


class Absent(ApiError):
    """404."""


class Conflict(ApiError):
    """409."""


class Expired(ApiError):
    """410."""


class Refused(ApiError):
    """The request will be refused again unless it, or the object, changes."""


class Forbidden(Refused):
    """403: the message names the verb and resource, or the quota."""


class Ending(Forbidden):
    """The namespace is being deleted."""


class Unavailable(ApiError):
    """The server is away, overloaded or broken for the moment."""


BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: Refused, 403: Forbidden, 404: Absent, 405: Refused, 409: Conflict, 410: Expired, 413: Refused, 415: Refused,
    422: Refused,
}  # fmt: skip


def from_answer(what: str, status: int, body: bytes, retry_after: str | None) -> ApiError:
    """Classify an HTTP answer of 400 and above; ``body`` is a metav1.Status where the server is healthy."""
    reason, message, ending = "", body[:500].decode(errors="replace"), False
    try:
        document = json.loads(body)
        reason, message = document.get("reason", ""), document.get("message", "")
        causes = (document.get("details") or {}).get("causes") or ()
        ending = any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    except (ValueError, AttributeError):
        pass  # a proxy's error page; its first bytes are the message
    kind = Ending if status == 403 and ending else BY_STATUS.get(status, Unavailable)
    if status == 500 and TYPED_PATCH_FAILED in message:
        kind = Refused
    wait_s = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    return kind(what, status, reason, message, wait_s)
