"""What a request shows of who is asking: one credential, in whichever way."""

import pytest
from aiohttp.test_utils import make_mocked_request

from services.gateway.access.auth import User, credential_of
from shared.errors import Unauthorized

T = "the-token"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {T}"},
        {"Authorization": f"bearer  {T} "},
        {"Authorization": f"Token {T}"},
        {"X-API-Token": T},
        {"X-Api-Key": T},
        {"Authorization": f"Token {T}", "X-API-Token": T, "X-Api-Key": T},
    ],
)
def test_every_way_to_send_it_is_the_same(headers: dict[str, str]):
    assert credential_of(make_mocked_request("POST", "/", headers=headers)) == T


@pytest.mark.parametrize("query", [f"token={T}", f"a=b&%74oken={T}", "token=the%2Dtoken"])
def test_where_nothing_is_changed_the_address_may_have_it(query: str):
    assert credential_of(make_mocked_request("GET", f"/x?{query}")) == T
    assert credential_of(make_mocked_request("POST", f"/x?{query}")) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer"},
        {"Authorization": T},
        {"X-Api-Key": "  "},
    ],
)
def test_what_is_none_is_not_taken_for_one(headers: dict[str, str]):
    assert credential_of(make_mocked_request("GET", "/?token=", headers=headers)) is None


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {"Authorization": f"Bearer {T}", "X-Api-Key": "another"}),
        ("/?token=another", {"X-API-Token": T}),
        (f"/?token={T}&token=another", {}),
        ("/", {"X-Api-Key": "x" * 1001}),
    ],
)
def test_several_of_them_or_one_without_end_stand_for_nobody(path: str, headers: dict[str, str]):
    with pytest.raises(Unauthorized) as refused:
        credential_of(make_mocked_request("GET", path, headers=headers))

    assert T not in refused.value.message


def test_whoever_looks_too_late_is_told_at_once():
    user, ended = User("u", "t"), []
    with user.watched(lambda: ended.append("early")):
        user.end()

    with user.watched(lambda: ended.append("late")):
        pass

    assert ended == ["early", "late"]
    assert not user.counts
