"""A feed trusts no delivery: what does not fit is read again and merged once."""

import asyncio

from tests.unit.gateway.logs import Log, feed_of, live


async def opened(log: Log):
    feed = feed_of(log)
    await feed.open()
    return feed


async def test_it_opens_with_the_text_that_is_there_already():
    log = Log()
    log.turn()
    attempt = log.claim().seq
    log.delta(attempt, 0, "Hel")
    log.delta(attempt, 3, "lo")

    feed = await opened(log)

    assert feed.state.running is not None
    assert (feed.state.running.attempt, feed.state.running.text) == (attempt, "Hello")


async def test_a_delta_that_fits_is_appended_without_reading_anything():
    log = Log()
    log.turn()
    attempt = log.claim().seq
    feed = await opened(log)
    reads, woken = log.reads, asyncio.Event()

    with feed.watchers.watching(woken.set):
        feed.on_token_event(live(log.delta(attempt, 0, "Hel")))
        feed.on_token_event(live(log.delta(attempt, 2, "lo")))

    assert feed.state.running is not None
    assert feed.state.running.text == "Helo"
    assert woken.is_set()
    assert log.reads == reads


async def test_a_gap_is_filled_from_the_log():
    log = Log()
    log.turn()
    attempt = log.claim().seq
    feed = await opened(log)
    log.delta(attempt, 0, "lost ")

    feed.on_token_event(live(log.delta(attempt, 5, "found")))
    await feed.refilled()

    assert feed.state.running is not None
    assert feed.state.running.text == "lost found"


async def test_an_attempt_whose_claim_was_not_heard_of_is_read_from_the_log():
    log = Log()
    log.turn()
    feed = await opened(log)
    attempt = log.claim().seq

    feed.on_token_event(live(log.delta(attempt, 0, "text")))
    await feed.refilled()

    assert feed.state.running is not None
    assert (feed.state.running.attempt, feed.state.running.text) == (attempt, "text")


async def test_what_a_lost_attempt_still_says_is_ignored():
    log = Log()
    log.turn()
    lost = log.claim().seq
    feed = await opened(log)
    feed.on_token_event(live(log.delta(lost, 0, "old")))
    claim = log.claim()
    feed.on_fact(*claim)
    feed.on_token_event(live(log.delta(claim.seq, 0, "new")))

    feed.on_token_event(live(log.delta(lost, 3, "er")))

    assert feed.state.running is not None
    assert feed.state.running.text == "new"


async def test_a_delta_after_the_end_is_ignored():
    log = Log()
    log.turn()
    attempt = log.claim().seq
    feed = await opened(log)
    feed.on_fact(*log.end("done", attempt=attempt))
    reads = log.reads

    feed.on_token_event(live(log.delta(attempt, 0, "done")))

    assert feed.state.running is None
    assert log.reads == reads


async def test_a_fact_whose_predecessor_is_missing_waits_for_it():
    log = Log()
    feed = await opened(log)
    missed = log.turn()
    claim = log.claim()

    feed.on_fact(*claim)
    await feed.refilled()

    assert [link.seq for link in feed.state.facts] == [missed.seq, claim.seq]


async def test_the_same_fact_twice_counts_once():
    log = Log()
    feed = await opened(log)
    todo = log.turn()

    feed.on_fact(*todo)
    feed.on_fact(*todo)

    assert [link.seq for link in feed.state.facts] == [todo.seq]


async def test_a_silent_reply_whose_chain_went_on_is_caught_up_with():
    log = Log()
    log.turn()
    attempt = log.claim().seq
    feed = await opened(log)
    log.end("unheard", attempt=attempt)

    await feed.check_silence()
    await feed.refilled()

    assert feed.state.running is None
    assert feed.state.unfinished == {}


async def test_facts_beyond_those_it_keeps_come_from_the_cold_log():
    log = Log()
    feed = await opened(log)
    for _ in range(50):
        for stored in (log.turn(), claim := log.claim(), log.end("x", attempt=claim.seq)):
            feed.on_fact(*stored)

    old = await feed.facts_after(0)

    assert [link.seq for link in old] == [s.seq for s in log.facts[:2]]
    assert len(feed.state.facts) == 64
    assert len(feed.state.runs) <= 22
