"""Requests that are not what they should be."""

import msgspec
import pytest

from services.store.answering import endpoint
from services.store.watermark import Watermark
from shared.commands import Done, ListMessages
from shared.errors import InvalidRequest, Unavailable


async def done(request: ListMessages) -> Done:
    return Done(seq=request.limit)


async def test_a_request_is_answered_on_its_subject():
    subject, serve = endpoint(ListMessages, done)

    answer = await serve(b'{"user_id": "u", "session_id": "s", "limit": 7}')

    assert subject == "cmd.store.list_messages"
    assert msgspec.json.decode(answer) == {"seq": 7}


async def test_a_mistyped_field_is_named():
    _, serve = endpoint(ListMessages, done)

    with pytest.raises(InvalidRequest) as refused:
        await serve(b'{"user_id": "u", "session_id": "s", "limit": "7"}')

    assert refused.value.path == "$.limit"
    assert refused.value.message == "Expected `int`, got `str`."


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"user_id": "\xff"}'])
async def test_what_is_no_request_is_refused(data: bytes):
    _, serve = endpoint(ListMessages, done)

    with pytest.raises(InvalidRequest):
        await serve(data)


async def test_an_answer_waits_for_the_fact_that_it_must_know(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.store.watermark.TIMEOUT", 0.01)
    applied = Watermark()
    _, serve = endpoint(ListMessages, done, applied.catch_up)
    request = b'{"user_id": "u", "session_id": "s", "min_seq": 5}'

    with pytest.raises(Unavailable) as late:
        await serve(request)
    applied.advance(5)

    assert late.value.retry_after is not None
    assert await serve(request)
