"""Messages that come while a reply is being written: queue, reject, interrupt."""

import asyncio

import pytest

from tests.support.log_checks import check_run, wait_until_all_ended, wait_until_ended
from tests.support.native_client import Reply
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_six_sends_at_once_under_reject_start_one_run(natterlog: Running):
    before = len(await wait_until_all_ended(natterlog.bus))
    for round_ in range(10):
        session_id = await natterlog.client.session(on_busy="reject")

        async def send(number: int, session_id: str = session_id, round_: int = round_) -> int:
            body = {"session_id": session_id, "content": f"{round_}.{number} tokens=20 rate=50"}
            status, _ = await natterlog.client.call("POST", "/messages", json=body)
            return status

        statuses = await asyncio.gather(*(send(number) for number in range(6)))

        assert sorted(statuses) == [201, 409, 409, 409, 409, 409]
    assert len(await wait_until_all_ended(natterlog.bus)) == before + 10


async def test_queued_messages_are_answered_in_their_order(natterlog: Running):
    session_id = await natterlog.client.session(on_busy="queue")
    replies = [Reply() for _ in range(4)]
    for number, reply in enumerate(replies):
        await natterlog.client.start(reply, session_id, f"number {number} tokens=20 rate=80")

    for reply in replies:
        await natterlog.client.follow(reply)

    _, page = await natterlog.client.call("GET", f"/messages/{session_id}")
    messages = [(m["role"], m["content"]) for m in page["items"]]
    expected = [
        pair
        for number, reply in enumerate(replies)
        for pair in (
            ("user", f"number {number} tokens=20 rate=80"),
            ("assistant", reply.text),
        )
    ]
    assert messages == expected
    for before, after in zip(page["items"], page["items"][1:], strict=False):
        assert after["parent_id"] == before["id"]


async def test_an_interrupt_cancels_the_reply_and_answers_the_new_message(natterlog: Running):
    first, second = Reply(), Reply()
    session_id = await natterlog.client.session(on_busy="interrupt")
    await natterlog.client.start(first, session_id, "tokens=5000 rate=50")
    await natterlog.client.follow(first, until=40)

    await natterlog.client.start(second, session_id, "tokens=4")
    await natterlog.client.follow(second)
    await natterlog.client.follow(first)

    first.check()
    second.check()
    assert first.end is not None
    assert second.end is not None
    assert first.end["message"]["status"] == "cancelled"
    assert second.end["message"]["status"] == "completed"


async def test_a_restarted_store_dispatches_what_waits(natterlog: Running):
    session_id = await natterlog.client.session(on_busy="queue")
    first, second = Reply(), Reply()
    await natterlog.client.start(first, session_id, "tokens=60 rate=60")
    await natterlog.client.start(second, session_id, "the second tokens=4")

    store = natterlog.system.one("store")
    await store.kill()
    await wait_until_ended(natterlog.bus, first.run_id)
    await store.start()

    async with asyncio.timeout(30):
        await natterlog.client.follow(second)
    second.check()
    runs = await wait_until_all_ended(natterlog.bus)
    check_run(runs[first.run_id])
    check_run(runs[second.run_id])


async def test_one_idempotency_key_is_one_turn(natterlog: Running):
    session_id = await natterlog.client.session()
    body = {"session_id": session_id, "content": "tokens=4"}
    headers = {"Idempotency-Key": "the-same"}

    first, second = await asyncio.gather(
        natterlog.client.call("POST", "/messages", json=body, headers=headers),
        natterlog.client.call("POST", "/messages", json=body, headers=headers),
    )
    other, _ = await natterlog.client.call(
        "POST", "/messages", json=body | {"content": "tokens=5"}, headers=headers
    )

    assert first == second
    assert first[0] == 201
    assert other == 422
    assert len(natterlog.fake.seen) == 1


async def test_a_session_that_rejects_takes_the_next_message_right_after_a_reply(
    natterlog: Running,
):
    session_id = await natterlog.client.session(on_busy="reject")

    for number in range(30):
        body = {"session_id": session_id, "content": f"number {number} tokens=2"}
        status, answer = await natterlog.client.call("POST", "/messages", json=body)

        assert status == 201, answer


async def test_one_idempotency_key_is_one_regeneration(natterlog: Running):
    session_id = await natterlog.client.session()
    body = {"session_id": session_id, "content": "tokens=4"}
    _, turn = await natterlog.client.call("POST", "/messages", json=body)
    path = f"/messages/{turn['assistant_message']['id']}/regenerate"
    headers = {"Idempotency-Key": "regenerate-once"}

    first = await natterlog.client.call("POST", path, headers=headers)
    second = await natterlog.client.call("POST", path, headers=headers)

    assert first == second
    assert first[0] == 201
    assert len(natterlog.fake.seen) == 2
