"""What a gateway counts of itself: requests, streams, sockets, feeds."""

from prometheus_client import REGISTRY

from tests.support.native_client import events_of
from tests.support.stage import Stage, frame

MESSAGES = "/api/v1/chat/messages?stream=true"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_open_streams_and_sockets_are_counted_while_they_are_open(on_stage: Stage):
    session_id = await on_stage.session()
    streams = counted("natterlog_connections", kind="stream")
    sockets = counted("natterlog_connections", kind="socket")
    body = {"session_id": session_id, "content": "Hello"}

    async with on_stage.http.post(MESSAGES, json=body) as answer:
        start, _ = await anext(events_of(answer))
        socket = await on_stage.open("/ws/ai-chat/sessions/")
        await frame(socket)
        while_open = (
            counted("natterlog_connections", kind="stream") - streams,
            counted("natterlog_connections", kind="socket") - sockets,
            counted("natterlog_feeds"),
        )
        await on_stage.store.claim(start["run_id"])
        await on_stage.store.end(start["run_id"], "Good day")
        await answer.read()

    assert while_open == (1, 1, 1)
    assert counted("natterlog_connections", kind="stream") == streams


async def test_requests_are_counted_by_dialect_and_status(on_stage: Stage):
    requests = [
        ("/api/v1/chat/sessions", "assistant", "200"),
        ("/ai-chat/api/sessions/", "channels", "200"),
        ("/api/jobs/nothing", "documents", "404"),
        ("/nowhere", "none", "404"),
    ]
    before = [
        counted("natterlog_requests_total", dialect=dialect, status=status)
        for _, dialect, status in requests
    ]

    for path, _, status in requests:
        async with on_stage.http.get(path) as answer:
            assert str(answer.status) == status

    after = [
        counted("natterlog_requests_total", dialect=dialect, status=status)
        for _, dialect, status in requests
    ]
    assert after == [number + 1 for number in before]
