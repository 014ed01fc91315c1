"""What natterlog may expect of its bus, whether a real server or the twin is behind it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from services.llm_worker.breaker_store import KvBreakerStore
from shared import objects
from shared.bus import MAX_REQUESTS, Bus, Incoming, NoAnswer, WrongSequence
from shared.chain import Overtaken, extend, read_chain
from shared.deltas import NOTHING, read_attempt
from shared.errors import Conflict, Internal, InvalidRequest, Overloaded, TooLarge, Unavailable
from shared.events import CancelRequested, Delta, RunEnded, encode
from shared.ids import new_id, now
from shared.log_entry import LogEntry
from shared.streams import DEAD, FILES, ensure_streams
from shared.subjects import EVENTS, TOKENS, Address, Scope, parse, session_address
from tests.support.memory_bus import Connect, MemoryBus, connector
from tests.support.nats_server import NatsServer

DEADLINE = 10.0


@pytest.fixture(params=["twin", "server"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return connector(request)


@pytest.fixture
async def bus(connect: Connect) -> AsyncIterator[Bus]:
    async with connect() as bus:
        await ensure_streams(bus)
        yield bus


def a_run(of: Address | None = None) -> Address:
    """A run of a session of its own, or one more of the session ``of``."""
    return of._replace(run=new_id()) if of else Address(new_id(), new_id(), new_id())


def a_final(text: str = "") -> RunEnded:
    return RunEnded(
        at=now(), status="completed", attempt=0, text=text, length=len(text), sha256="of it"
    )


async def outcomes(*appends: Any) -> tuple[list[int], list[type]]:
    """The sequences of what was stored, and the errors of the others."""
    results = await asyncio.gather(*appends, return_exceptions=True)
    stored = [result for result in results if isinstance(result, int)]
    return stored, [type(result) for result in results if not isinstance(result, int)]


# -- chains -------------------------------------------------------------------------


async def test_of_several_possible_next_facts_one_is_stored(bus: Bus):
    run = a_run()
    todo = await bus.append(run.todo_chat(0), b"todo", expected=0)

    stored, refused = await outcomes(
        bus.append(run.todo_chat(2), b"a second todo", expected=todo),
        bus.append(run.todo_chat(2), b"another", expected=todo),
        bus.append(run.fact("final"), b"final", expected=todo),
    )

    assert refused == [WrongSequence, WrongSequence]
    assert [fact.seq for fact in await bus.facts_after(EVENTS, run.facts, 0)] == [todo, *stored]


async def test_a_run_begins_once(bus: Bus):
    run = a_run()

    stored, refused = await outcomes(
        bus.append(run.todo_chat(0), b"1", expected=0),
        bus.append(run.fact("waiting"), b"2", expected=0),
    )

    assert (len(stored), refused) == (1, [WrongSequence])


async def test_runs_of_one_session_do_not_hinder_each_other(bus: Bus):
    one = a_run()
    other = a_run(of=one)
    first = await bus.append(one.todo_chat(0), b"", expected=0)
    await bus.append(other.todo_chat(0), b"", expected=0)

    stored = await bus.append(one.fact("claim"), b"", expected=first)

    assert [f.seq for f in await bus.facts_after(EVENTS, one.facts, 0)] == [first, stored]


async def test_of_several_first_todos_on_a_sessions_chain_one_is_stored(bus: Bus):
    one = a_run()
    runs = [one, *(a_run(of=one) for _ in range(5))]

    stored, refused = await outcomes(
        *(bus.append(r.todo_chat(0), b"", expected=0, scope=Scope.SESSION) for r in runs)
    )

    assert (len(stored), refused) == (1, [WrongSequence] * 5)


async def test_a_sessions_own_facts_are_checked_against_its_runs_too(bus: Bus):
    run = a_run()
    session = session_address(run.user, run.session)
    created = await bus.append(session.fact("session.created"), b"", expected=0)
    await bus.append(run.todo_chat(0), b"", expected=0)

    with pytest.raises(WrongSequence):
        await bus.append(session.fact("session.updated"), b"", expected=created)


async def test_nothing_is_stored_after_an_erase(bus: Bus):
    run = a_run()
    todo = await bus.append(run.todo_chat(0), b"", expected=0)
    await objects.erase_message(bus, EVENTS, todo)

    with pytest.raises(Overtaken) as overtaken:
        await extend(bus, run.fact("final"), a_final("late"), expected=todo)

    assert overtaken.value.entries == []
    assert await bus.facts_after(EVENTS, run.facts, 0) == []


async def test_what_is_gone_can_be_erased_again(bus: Bus):
    seq = await bus.append(a_run().todo_chat(0), b"", expected=0)

    for _ in range(2):
        await objects.erase_message(bus, EVENTS, seq)


async def test_who_comes_too_late_is_told_what_came_first(bus: Bus):
    run = a_run()
    first = await extend(bus, run.fact("cancel"), CancelRequested(at=now()), expected=0)
    second = await extend(bus, run.fact("cancel"), CancelRequested(at=now()), expected=first)

    with pytest.raises(Overtaken) as overtaken:
        await extend(bus, run.fact("final"), a_final(), expected=first)

    links = await read_chain(bus, run.facts, first)
    assert overtaken.value.entries == links
    assert [(link.seq, link.subject) for link in links] == [(second, run.fact("cancel"))]
    assert links[0].fact.prev == first


@pytest.mark.parametrize("stored", [True, False])
async def test_a_fact_whose_answer_was_lost_is_stored_once(bus: Bus, stored: bool):
    run = a_run()
    todo = await bus.append(run.todo_chat(0), encode(CancelRequested(at=now())), expected=0)
    lose_one_answer(bus, stored=stored)

    seq = await extend(bus, run.fact("final"), a_final("once"), expected=todo)

    links = await read_chain(bus, run.facts, todo)
    assert [link.seq for link in links] == [seq]


async def test_a_fact_whose_answer_was_lost_may_have_been_overtaken(bus: Bus):
    run = a_run()
    lose_one_answer(bus, stored=False)
    cancel = await bus.append(run.fact("cancel"), encode(CancelRequested(at=now())), expected=0)

    with pytest.raises(Overtaken) as overtaken:
        await extend(bus, run.fact("final"), a_final(), expected=0)

    assert [link.seq for link in overtaken.value.entries] == [cancel]


async def test_who_may_try_once_only_is_told_that_it_is_unknown(bus: Bus):
    run = a_run()
    lose_one_answer(bus, stored=False)

    with pytest.raises(NoAnswer):
        await extend(bus, run.fact("final"), a_final(), expected=0, tries=1)


def lose_one_answer(bus: Bus, *, stored: bool) -> None:
    """Make a fact's next append time out, after it was stored or instead of it."""
    append = bus.append

    async def lossy(subject: str, data: bytes, **how: Any) -> int:
        if subject.endswith(".cancel"):
            return await append(subject, data, **how)
        vars(bus).pop("append")
        if stored:
            await append(subject, data, **how)
        raise NoAnswer("lost")

    vars(bus)["append"] = lossy


# -- reading ------------------------------------------------------------------------


async def test_a_log_of_large_messages_is_read_whole_however_much_it_is(nats_server: NatsServer):
    run, piece = a_run(), bytes(250_000)
    async with Bus(nats_server.url, name="test") as bus:
        await ensure_streams(bus)
        seqs = [0]
        for _ in range(300):  # 75 MB: more than the server sends at once
            seqs.append(await bus.append(run.tokens, piece, expected=seqs[-1]))

        found = await bus.read(TOKENS, run.tokens)
        some = await bus.read(TOKENS, run.tokens, after=seqs[10], limit=100)
        await bus.api(f"STREAM.PURGE.{TOKENS}", {"filter": run.tokens})

    assert [message.seq for message in found] == seqs[1:]
    assert [message.seq for message in some] == seqs[11:111]


async def test_a_log_of_more_than_a_thousand_messages_is_read_whole(bus: Bus):
    run = a_run()
    pieces = [f"{n} " for n in range(1100)]
    seqs, offset = [0], 0
    for piece in pieces:
        delta = encode(Delta(7, offset, piece))
        seqs.append(await bus.append(run.tokens, delta, expected=seqs[-1]))
        offset += len(piece)

    first = await bus.read(TOKENS, run.tokens)
    rest = await bus.read(TOKENS, run.tokens, after=first[-1].seq)
    from_the_leader = await bus.facts_after(TOKENS, run.tokens, 0)

    assert [stored.seq for stored in first + rest] == seqs[1:]
    assert (len(first), len(rest)) == (1000, 100)
    assert from_the_leader == first + rest
    written = await read_attempt(bus, run)
    assert written[:3] == (7, "".join(pieces), seqs[-1])
    assert len(written.timeline) == len(pieces)
    assert await bus.head(TOKENS, run.tokens) == rest[-1]


async def test_where_nothing_is_nothing_is_read(bus: Bus):
    run = a_run()

    assert await bus.head(EVENTS, run.facts) is None
    assert await bus.read(EVENTS, run.facts) == []
    assert await bus.facts_after(EVENTS, run.facts, 0) == []
    assert await read_attempt(bus, run) == NOTHING


async def test_streams_are_made_once(bus: Bus, connect: Connect):
    async with connect() as other:
        epochs = await asyncio.gather(ensure_streams(bus), ensure_streams(other))

    assert epochs[0] == epochs[1]


# -- live ---------------------------------------------------------------------------


async def test_live_is_what_was_stored_and_nothing_else(bus: Bus, connect: Connect):
    run = a_run()
    heard: asyncio.Queue[Incoming] = asyncio.Queue()
    async with connect() as listener:
        await listener.listen_live(f"live.evt.{run.user}.>", heard.put_nowait)
        await listener.listen_live(f"live.tok.{run.user}.>", heard.put_nowait)
        await listener.head(EVENTS, run.facts)  # so the server knows of both by now

        todo = await bus.append(run.todo_chat(0), b"todo", expected=0)
        with pytest.raises(WrongSequence):
            await bus.append(run.fact("final"), b"refused", expected=0)
        delta = await bus.append(run.tokens, b"delta", expected=0)
        with pytest.raises(WrongSequence):
            await bus.append(run.tokens, b"refused", expected=0)
        final = await bus.append(run.fact("final"), b"final", expected=todo)
        async with asyncio.timeout(DEADLINE):
            live = [await heard.get() for _ in range(3)]

    assert sorted((m.subject, m.sequence, m.data) for m in live) == sorted(
        [
            (f"live.{run.todo_chat(0)}", todo, b"todo"),
            (f"live.{run.tokens}", delta, b"delta"),
            (f"live.{run.fact('final')}", final, b"final"),
        ]
    )
    assert heard.empty()
    assert {parse(m.subject) for m in live} == {run}


async def test_only_live_subjects_may_be_listened_to_as_such(bus: Bus):
    with pytest.raises(ValueError, match="not a live subject"):
        await bus.listen_live("evt.>", print)


async def test_a_listening_that_was_closed_hears_nothing_more(bus: Bus):
    run = a_run()
    heard: asyncio.Queue[str] = asyncio.Queue()
    closed = await bus.listen(f"sig.{run.run}", lambda _: heard.put_nowait("closed"))
    await bus.listen(f"sig.{run.run}", lambda _: heard.put_nowait("open"))

    await closed.close()
    bus.post(f"sig.{run.run}")
    async with asyncio.timeout(DEADLINE):
        first = await heard.get()

    assert (first, heard.empty()) == ("open", True)


async def test_a_listener_that_fails_does_not_end_the_connection(bus: Bus):
    run = a_run()
    heard: asyncio.Queue[Incoming] = asyncio.Queue()
    await bus.listen(f"sig.{run.run}", lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    await bus.listen(f"sig.{run.run}", heard.put_nowait)

    bus.post(f"sig.{run.run}", b"still there")
    async with asyncio.timeout(DEADLINE):
        message = await heard.get()

    assert message.data == b"still there"


# -- objects ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, objects.CHUNK, objects.CHUNK + 1, 1_300_000])
async def test_an_object_is_read_as_it_was_written(bus: Bus, size: int):
    name, data = new_id(), bytes(n % 251 for n in range(size))

    await objects.put(bus, name, data)

    assert await objects.get(bus, name) == data


async def test_an_erased_object_is_missing(bus: Bus):
    name = new_id()
    await objects.put(bus, name, b"secret")

    for _ in range(2):
        await objects.erase(bus, name)

    with pytest.raises(objects.ObjectMissing):
        await objects.get(bus, name)


async def test_an_object_is_written_in_pieces_of_any_size_and_known_by_its_digest(bus: Bus):
    name, pieces = new_id(), [bytes([n % 256]) * (n * 997) for n in range(60)]

    async with objects.writing(bus, name) as writer:
        for piece in pieces:
            await writer.write(piece)

    whole = b"".join(pieces)
    assert (writer.size, writer.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert b"".join([chunk async for chunk in objects.reading(bus, name)]) == whole


@pytest.mark.parametrize("broken_by", [ValueError, asyncio.CancelledError])
async def test_nothing_is_left_of_an_object_that_was_not_finished(
    bus: Bus, broken_by: type[BaseException]
):
    name, before = new_id(), await chunks_in_files(bus)

    with pytest.raises(broken_by):
        await break_off(bus, name, broken_by())

    assert await chunks_in_files(bus) == before
    with pytest.raises(objects.ObjectMissing):
        await objects.get(bus, name)


async def test_the_sweep_erases_what_a_killed_writer_left_and_nothing_else(bus: Bus):
    whole, killed = new_id(), f"$O.FILES.C.{new_id()}"
    await objects.put(bus, whole, b"whole")
    await bus.store(killed, bytes(objects.CHUNK))

    await objects.sweep(bus)
    assert killed in await chunks_in_files(bus)  # so young, it may still be written
    await objects.sweep(bus, older_than=-60.0)  # ids run ahead of the clock when many are made

    assert killed not in await chunks_in_files(bus)
    assert await objects.get(bus, whole) == b"whole"


async def break_off(bus: Bus, name: str, why: BaseException) -> None:
    async with objects.writing(bus, name) as writer:
        await writer.write(bytes(5 * objects.CHUNK + 1))
        raise why


async def chunks_in_files(bus: Bus) -> set[str]:
    info = await bus.api("STREAM.INFO.OBJ_FILES", {"subjects_filter": "$O.FILES.C.>"})
    return set(info["state"].get("subjects") or ())


async def test_a_fact_over_256_kib_lies_in_files_and_is_read_whole(bus: Bus):
    run = a_run()
    text = "Grüße, 🌍! " * 40_000

    seq = await extend(bus, run.fact("final"), a_final(text), expected=0)

    stored = await bus.head(EVENTS, run.facts)
    assert stored is not None
    assert len(stored.data) < 1024
    assert objects.is_packed(stored.data)
    [link] = await read_chain(bus, run.facts)
    assert isinstance(link.fact, RunEnded)
    assert (link.seq, link.fact.text) == (seq, text)


async def test_a_small_fact_is_left_as_it_is_even_if_it_quotes_a_pointer(bus: Bus):
    data = encode(a_final('{"$file": "x"}'))

    assert await objects.unpack(bus, data) == data


async def test_erasing_a_facts_fields_leaves_nothing_of_them_in_files(bus: Bus):
    run = a_run()
    text = "x" * 300_000
    before = await files(bus)
    for _ in range(2):  # the same words twice are kept once
        await extend(bus, a_run(of=run).fact("final"), a_final(text), expected=0)
    facts = await bus.facts_after(EVENTS, run.session_facts, 0)
    kept = await files(bus)

    for fact in facts:
        await objects.erase_refs(bus, fact.data)

    assert len(facts) == 2
    assert len(kept - before) == 4  # three chunks, and what is said about them
    assert await files(bus) == before
    with pytest.raises(objects.ObjectMissing):
        await objects.unpack(bus, facts[0].data)


async def test_a_fact_that_is_half_erased_is_not_in_its_chain(bus: Bus):
    run = a_run()
    cancel = await extend(bus, run.fact("cancel"), CancelRequested(at=now()), expected=0)
    await extend(bus, run.fact("final"), a_final("x" * 300_000), expected=cancel)
    for fact in await bus.facts_after(EVENTS, run.facts, 0):
        await objects.erase_refs(bus, fact.data)

    chain: list[LogEntry] = await read_chain(bus, run.facts)

    assert [link.seq for link in chain] == [cancel]


async def files(bus: Bus) -> set[int]:
    return {message.seq for message in await bus.read(FILES, "$O.FILES.>", limit=100_000)}


# -- messages in no chain -------------------------------------------------------------


async def test_a_rollup_replaces_what_its_subject_held(bus: Bus):
    key = f"$O.FILES.M.{new_id()}"

    await bus.store(key, b"old", rollup=True)
    new = await bus.store(key, b"new", rollup=True)

    assert [(m.seq, m.data) for m in await bus.read(FILES, key)] == [(new, b"new")]


async def test_dead_letters_are_kept_one_after_the_other(bus: Bus):
    subject = f"dead.{new_id()}"

    for letter in (b"1", b"2"):
        await bus.store(subject, letter)

    assert [m.data for m in await bus.read(DEAD, subject)] == [b"1", b"2"]


async def test_a_breaker_store_is_changed_by_whoever_knows_what_lies_there(bus: Bus):
    store, key = KvBreakerStore(bus), new_id()

    empty = await store.get(key)
    first = await store.put(key, b"first", 0)
    too_late = await store.put(key, b"too late", 0)
    value, revision = await store.get(key)
    second = await store.put(key, b"second", revision)

    assert (empty, first, too_late, value, second) == ((None, 0), True, False, b"first", True)
    assert (await store.get(key))[0] == b"second"
    assert await store.every_value() == [b"second"]


# -- requests -----------------------------------------------------------------------


async def test_an_answer_comes_back(bus: Bus, connect: Connect):
    subject = f"cmd.test.{new_id()}"

    async def greet(name: bytes) -> bytes:
        return b"Hello " + name

    async with connect() as server:
        await server.serve("greeter", {subject: greet})

        assert await bus.ask(subject, b"Ada") == b"Hello Ada"


async def test_an_error_travels_as_what_it_is(bus: Bus, connect: Connect):
    subject = f"cmd.test.{new_id()}"

    async def refuse(_: bytes) -> bytes:
        raise InvalidRequest("No.", path="$.content", retry_after=3.0)

    async with connect() as server:
        await server.serve("refuser", {subject: refuse})

        with pytest.raises(InvalidRequest) as refused:
            await bus.ask(subject, b"")

    error = refused.value
    assert (error.message, error.path, error.retry_after) == ("No.", "$.content", 3.0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(NoAnswer("the bus is away"), Unavailable), (ZeroDivisionError(), Internal)],
)
async def test_what_went_wrong_inside_a_service_is_told_as_an_error_of_the_family(
    bus: Bus, connect: Connect, fault: Exception, error: type[Exception]
):
    subject = f"cmd.test.{new_id()}"

    async def fail(_: bytes) -> bytes:
        raise fault

    async with connect() as server:
        await server.serve("failing", {subject: fail})

        with pytest.raises(error) as raised:
            await bus.ask(subject, b"")

    assert type(raised.value) is error


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 1_000_000])
async def test_an_answer_of_any_size_arrives_whole(bus: Bus, connect: Connect, size: int):
    subject = f"cmd.test.{new_id()}"
    answer = bytes(n % 251 for n in range(size))

    async def reply(_: bytes) -> bytes:
        return answer

    async with connect() as server:
        await server.serve("sayer", {subject: reply})

        assert await bus.ask(subject, b"") == answer


async def test_an_answer_that_lost_a_frame_is_no_answer(bus: Bus, connect: Connect):
    subject = f"cmd.test.{new_id()}"

    def answer(message: Incoming) -> None:
        for number in (1, 3):
            server.call_soon(
                message.reply,
                b"%d" % number,
                lambda _: None,
                headers=b"NATS/1.0\r\nNatterlog-Frame: %d/3\r\n\r\n" % number,
                timeout=DEADLINE,
            )

    async with connect() as server:
        await server.listen(subject, answer)
        await server.head(EVENTS, "evt.>")  # so the server knows of it by now

        with pytest.raises(Unavailable):
            await bus.ask(subject, b"")


async def test_many_requests_are_worked_on_at_once_and_one_too_many_is_refused(
    bus: Bus, connect: Connect
):
    subject = f"cmd.test.{new_id()}"
    full, go_on = asyncio.Event(), asyncio.Event()
    waiting = 0

    async def wait(request: bytes) -> bytes:
        nonlocal waiting
        waiting += 1
        if waiting == MAX_REQUESTS:
            full.set()
        await go_on.wait()
        return request

    async with connect() as server, asyncio.timeout(DEADLINE):
        await server.serve("waiter", {subject: wait})
        requests = [asyncio.create_task(bus.ask(subject, b"%d" % n)) for n in range(MAX_REQUESTS)]
        await full.wait()
        with pytest.raises(Overloaded):
            await bus.ask(subject, b"one too many")
        go_on.set()
        answers = await asyncio.gather(*requests)

    assert answers == [b"%d" % n for n in range(MAX_REQUESTS)]


async def test_where_nobody_listens_the_asker_is_told_to_come_back(bus: Bus):
    with pytest.raises(Unavailable) as unavailable:
        await bus.ask(f"cmd.test.{new_id()}", b"")

    assert unavailable.value.retry_after == 2.0


async def test_a_service_that_comes_back_in_time_is_not_missed(bus: Bus, connect: Connect):
    subject = f"cmd.test.{new_id()}"

    async def answer(_: bytes) -> bytes:
        raise Conflict("I am back.")

    waiting = asyncio.create_task(bus.ask(subject, b""))
    await bus.call("$JS.API.STREAM.INFO.EVENTS")  # the first request found nobody by now
    async with connect() as server:
        await server.serve("late", {subject: answer})

        with pytest.raises(Conflict):
            await waiting


async def test_any_nats_tool_sees_a_service(bus: Bus, connect: Connect):
    async def answer(_: bytes) -> bytes:
        return b""

    name = f"service-{new_id()}"
    async with connect() as server:
        await server.serve(name, {f"cmd.test.{name}": answer})
        await server.head(EVENTS, "evt.>")  # so the server knows of it by now
        ping = await bus.call(f"$SRV.PING.{name}")

    pong = msgspec.json.decode(ping.data)
    assert (pong["name"], pong["type"]) == (name, "io.nats.micro.v1.ping_response")


# -- a bad day ------------------------------------------------------------------------


async def test_a_service_can_leave_although_its_server_is_gone(own_nats_server: NatsServer):
    async def answer(_: bytes) -> bytes:
        return b""

    async with asyncio.timeout(DEADLINE / 2):
        async with Bus(own_nats_server.url, name="test") as bus:
            await bus.serve("leaving", {f"cmd.test.{new_id()}": answer})
            await own_nats_server.kill()

    assert not bus.connected
    await own_nats_server.start()


async def test_a_request_that_no_message_can_carry_is_too_large(bus: Bus):
    with pytest.raises(TooLarge):
        await bus.ask("cmd.test", bytes(9 * 1024 * 1024))


async def test_an_error_is_short_whatever_it_quotes(connect: Connect):
    async with connect() as bus, connect() as asker:
        subject = f"cmd.{new_id()}"

        async def refuse(request: bytes) -> bytes:
            raise InvalidRequest("\x01" * 10_000_000, path="$." + "x" * 10_000_000)

        await bus.serve("test", {subject: refuse})
        with pytest.raises(InvalidRequest) as refused:
            await asker.ask(subject, b"")

    assert refused.value.message == "\x01" * 2_000 + " …"
    assert len(refused.value.path or "") < 2_010


async def test_what_is_asked_while_the_server_is_away_is_answered_when_it_is_back(
    own_nats_server: NatsServer,
):
    async with Bus(own_nats_server.url, name="test") as bus:
        await ensure_streams(bus)
        run = a_run()
        todo = await bus.append(run.todo_chat(0), encode(CancelRequested(at=now())), expected=0)
        await own_nats_server.kill()

        extending = asyncio.create_task(extend(bus, run.fact("final"), a_final(), expected=todo))
        await own_nats_server.start()
        async with asyncio.timeout(2 * DEADLINE):
            final = await extending

        assert [fact.seq for fact in await bus.facts_after(EVENTS, run.facts, todo)] == [final]


async def test_one_failing_time_out_does_not_end_the_others(twin: MemoryBus):
    timed_out = asyncio.Event()
    twin.server.subscriptions.clear()  # nobody answers, and nobody says so
    await twin.listen("silence", lambda _: None)

    twin.call_soon("silence", b"", lambda _: 1 / 0, timeout=0.0)  # type: ignore[arg-type, return-value]
    twin.call_soon("silence", b"", lambda _: timed_out.set(), timeout=0.15)

    async with asyncio.timeout(DEADLINE):
        await timed_out.wait()


# -- the twin's own switches ----------------------------------------------------------


@pytest.fixture
async def twin() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        yield bus


async def test_a_twin_that_refuses_has_stored_nothing(twin: MemoryBus):
    run = a_run()
    twin.server.refuse(1)

    with pytest.raises(NoAnswer):
        await twin.append(run.fact("final"), b"", expected=0)

    assert await twin.head(EVENTS, run.facts) is None


async def test_a_chunk_whose_answer_was_lost_is_erased_with_the_others(twin: MemoryBus):
    await ensure_streams(twin)
    twin.server.lose_answers(1)

    with pytest.raises(NoAnswer):
        await objects.put(twin, new_id(), bytes(3 * objects.CHUNK))

    assert await chunks_in_files(twin) == set()


async def test_a_twin_that_loses_its_answer_has_stored_the_fact(twin: MemoryBus):
    run = a_run()
    twin.server.lose_answers(1)

    with pytest.raises(NoAnswer):
        await twin.append(run.fact("final"), b"", expected=0)

    assert await twin.head(EVENTS, run.facts) == (1, run.fact("final"), b"")


async def test_a_fact_waits_for_the_line_to_be_mended(twin: MemoryBus):
    run = a_run()
    await twin.disconnect()
    extending = asyncio.create_task(extend(twin, run.fact("final"), a_final("x"), expected=0))
    large = asyncio.create_task(
        extend(twin, a_run(of=run).fact("final"), a_final("x" * 300_000), expected=0)
    )
    await asyncio.sleep(0)

    await twin.reconnect()
    async with asyncio.timeout(DEADLINE):
        seqs = await asyncio.gather(extending, large)

    assert sorted(seqs) == [m.seq for m in await twin.facts_after(EVENTS, run.session_facts, 0)]


async def test_a_large_fact_outlasts_a_bus_that_stores_nothing_for_a_while(twin: MemoryBus):
    run = a_run()
    twin.server.refuse(3)

    seq = await extend(twin, run.fact("final"), a_final("x" * 300_000), expected=0)

    assert [link.seq for link in await read_chain(twin, run.facts)] == [seq]
