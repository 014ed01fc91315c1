"""The family of errors that clients see: one code, one HTTP status each.

    NatterlogError
    ├── InvalidRequest 400      ├── Conflict 409             ├── RateLimited 429
    ├── Unauthorized 401        ├── KeyReused 422            ├── Cancelled 499
    ├── Forbidden 403           ├── TooLarge 413             ├── ProviderFailed 502
    ├── NotFound 404            ├── UnsupportedMediaType 415 ├── Unavailable 503
    ├── ModelNotFound 404       ├── Timeout 504              ├── Overloaded 503
    └── MethodNotAllowed 405                                 └── Internal 500

A service raises one; the bus carries it as (code, sentence) and raises it again
on the other side; a dialect puts it into its own envelope (docs/api.md).
"""

LONGEST_SENTENCE = 2_000
"""Characters of an error's sentence on the bus and in the log: it may quote a stranger's text."""


def shortened(sentence: str) -> str:
    """The sentence, or as much of it as anybody reads."""
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    return f"{sentence[:LONGEST_SENTENCE]} …"


class NatterlogError(Exception):
    """Something went wrong that a client is told about in a sentence."""

    code = "internal"
    status = 500

    def __init__(
        self, message: str, *, path: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        """Where in the request the fault is, as ``$.options.temperature``."""
        self.retry_after = retry_after
        """Seconds after which another try makes sense."""

    @property
    def located(self) -> str:
        """The sentence, after the field that is at fault: for envelopes without a place for it."""
        if self.path in (None, "$") or isinstance(self, ModelNotFound):  # which names itself
            return self.message
        return f"{self.path}: {self.message}"


class InvalidRequest(NatterlogError):
    code, status = "invalid_request", 400


class Unauthorized(NatterlogError):
    code, status = "unauthorized", 401


class Forbidden(NatterlogError):
    code, status = "forbidden", 403


class NotFound(NatterlogError):
    """Not there, or not yours: the two are told alike."""

    code, status = "not_found", 404


class ModelNotFound(NatterlogError):
    code, status = "model_not_found", 404


class MethodNotAllowed(NatterlogError):
    code, status = "method_not_allowed", 405


class Conflict(NatterlogError):
    code, status = "conflict", 409


class KeyReused(NatterlogError):
    """An idempotency key came again with another body."""

    code, status = "conflict", 422


class TooLarge(NatterlogError):
    code, status = "too_large", 413


class UnsupportedMediaType(NatterlogError):
    code, status = "unsupported_media_type", 415


class RateLimited(NatterlogError):
    code, status = "rate_limited", 429


class Cancelled(NatterlogError):
    code, status = "cancelled", 499


class ProviderFailed(NatterlogError):
    code, status = "provider_error", 502


class Unavailable(NatterlogError):
    """A part that is needed does not answer; it is worth trying again."""

    code, status = "provider_unavailable", 503


class Unreached(Unavailable):
    """Nobody was there to be asked, so nothing was done."""


class Overloaded(NatterlogError):
    """More is asked for than can be done in good time; nothing was done."""

    code, status = "overloaded", 503


class Timeout(NatterlogError):
    code, status = "timeout", 504


class Internal(NatterlogError):
    """A defect of natterlog's; the log has the details."""


_FAMILY = NatterlogError.__subclasses__()
_BY_STATUS_AND_CODE = {(kind.status, kind.code): kind for kind in _FAMILY}


def from_wire(
    code: str, status: int, message: str, path: str | None, retry_after: float | None
) -> NatterlogError:
    """The error that another service raised, made anew from what the bus carried."""
    kind = _BY_STATUS_AND_CODE.get((status, code), Internal)
    return kind(message, path=path, retry_after=retry_after)


def from_code(code: str, message: str, retry_after: float | None = None) -> NatterlogError:
    """The error of a code alone, as a ``final: failed`` carries it."""
    kind = next((k for k in _FAMILY if k.code == code), Internal)
    return kind(message, retry_after=retry_after)
