"""The family of errors, on the wire and back."""

import pytest

from shared import errors
from shared.errors import Internal, KeyReused, NatterlogError, from_code, from_wire

FAMILY = NatterlogError.__subclasses__()
CODES_AND_STATUSES = {
    "InvalidRequest": ("invalid_request", 400),
    "Unauthorized": ("unauthorized", 401),
    "Forbidden": ("forbidden", 403),
    "NotFound": ("not_found", 404),
    "ModelNotFound": ("model_not_found", 404),
    "MethodNotAllowed": ("method_not_allowed", 405),
    "Conflict": ("conflict", 409),
    "KeyReused": ("conflict", 422),
    "TooLarge": ("too_large", 413),
    "UnsupportedMediaType": ("unsupported_media_type", 415),
    "RateLimited": ("rate_limited", 429),
    "Cancelled": ("cancelled", 499),
    "ProviderFailed": ("provider_error", 502),
    "Unavailable": ("provider_unavailable", 503),
    "Overloaded": ("overloaded", 503),
    "Timeout": ("timeout", 504),
    "Internal": ("internal", 500),
}


def test_the_family_has_the_codes_and_statuses_of_the_contract():
    assert {kind.__name__: (kind.code, kind.status) for kind in FAMILY} == CODES_AND_STATUSES


def test_the_family_is_drawn_as_it_is():
    drawing = errors.__doc__ or ""

    assert [
        kind.__name__ for kind in FAMILY if f"{kind.__name__} {kind.status}" not in drawing
    ] == []


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_that_travelled_is_the_same_error(kind: type[NatterlogError]):
    error = from_wire(kind.code, kind.status, "No.", "$.content", 2.0)

    assert type(error) is kind
    assert (str(error), error.message, error.path, error.retry_after) == (
        "No.",
        "No.",
        "$.content",
        2.0,
    )


def test_an_error_of_a_newer_version_is_an_internal_one():
    error = from_wire("from_the_future", 418, "Tea.", None, None)

    assert (type(error), error.message) == (Internal, "Tea.")


@pytest.mark.parametrize("kind", [kind for kind in FAMILY if kind is not KeyReused])
def test_a_code_alone_gives_its_error(kind: type[NatterlogError]):
    assert type(from_code(kind.code, "No.")) is kind


def test_an_unknown_code_is_an_internal_error():
    assert type(from_code("from_the_future", "No.")) is Internal
