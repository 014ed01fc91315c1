"""A feed trusts no delivery: what does not fit is read again and merged once."""

import asyncio

from tests.unit.gateway.served_log import ServedLog, an_open_session, feed_of, live


async def opened(log: ServedLog):
    feed = feed_of(log)
    await feed.open()
    return feed


async def test_it_opens_with_the_text_that_is_there_already():
    log = an_open_session()
    run = log.sends("Hello")
    attempt = log.claims(run)
    log.stores(run, attempt, 0, "Hel")
    log.stores(run, attempt, 3, "lo")

    feed = await opened(log)

    assert feed.state.running is not None
    assert (feed.state.running.attempt, feed.state.running.text) == (attempt, "Hello")


async def test_a_delta_that_fits_is_appended_without_reading_anything():
    log = an_open_session()
    run = log.sends("Hello")
    attempt = log.claims(run)
    feed = await opened(log)
    reads, woken = log.bus_reads, asyncio.Event()

    with feed.watchers.watching(woken.set):
        feed.on_token_event(live(log.stores(run, attempt, 0, "Hel")))
        feed.on_token_event(live(log.stores(run, attempt, 2, "lo")))

    assert feed.state.running is not None
    assert feed.state.running.text == "Helo"
    assert woken.is_set()
    assert log.bus_reads == reads


async def test_a_gap_is_filled_from_the_log():
    log = an_open_session()
    run = log.sends("Hello")
    attempt = log.claims(run)
    feed = await opened(log)
    log.stores(run, attempt, 0, "lost ")

    feed.on_token_event(live(log.stores(run, attempt, 5, "found")))
    await feed.refilled()

    assert feed.state.running is not None
    assert feed.state.running.text == "lost found"


async def test_an_attempt_whose_claim_was_not_heard_of_is_read_from_the_log():
    log = an_open_session()
    run = log.sends("Hello")
    feed = await opened(log)
    attempt = log.claims(run)

    feed.on_token_event(live(log.stores(run, attempt, 0, "text")))
    await feed.refilled()

    assert feed.state.running is not None
    assert (feed.state.running.attempt, feed.state.running.text) == (attempt, "text")


async def test_what_a_lost_attempt_still_says_is_ignored():
    log = an_open_session()
    run = log.sends("Hello")
    lost = log.claims(run)
    feed = await opened(log)
    feed.on_token_event(live(log.stores(run, lost, 0, "old")))
    claim = log.claims(run)
    feed.on_fact(*log.last)
    feed.on_token_event(live(log.stores(run, claim, 0, "new")))

    feed.on_token_event(live(log.stores(run, lost, 3, "er")))

    assert feed.state.running is not None
    assert feed.state.running.text == "new"


async def test_a_delta_after_the_end_is_ignored():
    log = an_open_session()
    run = log.sends("Hello")
    attempt = log.claims(run)
    feed = await opened(log)
    log.ends(run, "done")
    feed.on_fact(*log.last)
    reads = log.bus_reads

    feed.on_token_event(live(log.stores(run, attempt, 0, "done")))

    assert feed.state.running is None
    assert log.bus_reads == reads


async def test_a_fact_whose_predecessor_is_missing_waits_for_it():
    log = an_open_session()
    feed = await opened(log)
    log.claims(log.sends("Hello"))

    feed.on_fact(*log.last)
    await feed.refilled()

    assert list(feed.state.facts) == log.entries[-2:]


async def test_the_same_fact_twice_counts_once():
    log = an_open_session()
    feed = await opened(log)
    log.sends("Hello")

    feed.on_fact(*log.last)
    feed.on_fact(*log.last)

    assert list(feed.state.facts) == log.entries[-1:]


async def test_a_silent_reply_whose_chain_went_on_is_caught_up_with():
    log = an_open_session()
    run = log.sends("Hello")
    log.claims(run)
    feed = await opened(log)
    log.ends(run, "unheard")

    await feed.check_silence()
    await feed.refilled()

    assert feed.state.running is None
    assert feed.state.unfinished == {}


async def test_facts_beyond_those_it_keeps_come_from_the_cold_log():
    log = an_open_session()
    feed = await opened(log)
    for _ in range(50):
        log.replies("Hello", "x")
        for entry in log.entries[-3:]:
            feed.on_fact(entry.seq, entry.subject, entry.data)

    old = await feed.facts_after(0)

    assert old == log.entries[:2]
    assert len(feed.state.facts) == 64
    assert len(feed.state.runs) <= 22
