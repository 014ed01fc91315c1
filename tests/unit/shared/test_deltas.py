"""An attempt's text, whatever happens to its deltas on the way."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus import Bus
from shared.deltas import LONGEST, AttemptText, Merge, Written, read_attempt, split
from shared.events import Delta, Progress, encode
from shared.ids import new_id
from shared.streams import ensure_streams
from shared.subjects import Address
from tests.support.memory_bus import MemoryBus

ATTEMPT = 7

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[str, list[Delta]]:
    """A text, and pieces of it in any order: doubled, overlapping, with holes."""
    text = draw(texts)
    pairs = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))
    ranges = [sorted(pair) for pair in draw(st.lists(pairs, max_size=12))]
    return text, [Delta(ATTEMPT, start, text[start:end]) for start, end in ranges]


@given(cuts())
def test_deltas_in_any_order_make_a_beginning_of_the_text_and_never_another(
    cut: tuple[str, list[Delta]],
):
    text, deltas = cut
    known = AttemptText(ATTEMPT)

    for delta in deltas:
        before = known.text
        merge = known.merge(delta)

        end = delta.offset + len(delta.text)
        assert text.startswith(known.text)
        if merge is Merge.GREW:
            assert known.text == text[:end]
            assert len(known.text) > len(before)
        else:
            assert known.text == before
            assert (merge is Merge.GAP) == (delta.offset > len(before))


@given(texts, st.integers(1, 50))
def test_a_text_is_split_into_pieces_that_make_it_again(text: str, longest: int):
    pieces = split(text, longest)

    assert "".join(pieces) == text
    assert all(0 < len(piece) <= longest for piece in pieces)
    assert all(len(piece) == longest for piece in pieces[:-1])


@pytest.mark.parametrize("character", ["a", "\x01", '"', "\n", "é", "€", "😀", "\u2028", "\x7f"])
def test_a_piece_of_any_characters_fits_into_a_delta_of_256_kib(character: str):
    attempt = offset = ms = 2**53 - 1

    (piece,) = split(character * LONGEST)

    assert len(encode(Delta(attempt, offset, piece, ms))) <= 256 * 1024


@given(texts, st.data())
def test_whatever_overlaps_the_whole_text_comes_together(text: str, data: st.DataObject):
    bounds = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    starts, ends = [0, *bounds], [*bounds, len(text)]
    deltas = [
        Delta(ATTEMPT, start, text[start:end]) for start, end in zip(starts, ends, strict=True)
    ]
    repeated = data.draw(st.lists(st.sampled_from(deltas), max_size=5))
    known = AttemptText(ATTEMPT)

    for delta in sorted([*deltas, *repeated], key=lambda delta: delta.offset):
        known.merge(delta)

    assert known.text == text


@given(texts, texts, st.integers(0, ATTEMPT - 1), st.integers(0, 50))
def test_an_older_attempt_never_changes_the_text(text: str, late: str, older: int, offset: int):
    known = AttemptText(ATTEMPT, text)

    merge = known.merge(Delta(older, offset, late))

    assert (merge, known.attempt, known.text) == (Merge.KNOWN, ATTEMPT, text)
    assert (known.begin(older), known.text) == (False, text)


@given(texts, texts)
def test_an_attempt_whose_claim_was_not_seen_is_a_gap(text: str, early: str):
    known = AttemptText(ATTEMPT, text)

    assert (known.merge(Delta(ATTEMPT + 1, 0, early)), known.text) == (Merge.GAP, text)


def test_a_newer_attempt_starts_over():
    known = AttemptText(ATTEMPT, "Half of")

    began = known.begin(ATTEMPT + 1)

    assert (began, known.attempt, known.text) == (True, ATTEMPT + 1, "")
    assert known.merge(Delta(ATTEMPT + 1, 0, "The whole")) is Merge.GREW


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        yield bus


async def test_the_log_is_read_by_attempt_and_offset_not_by_its_sequence(bus: Bus):
    run = Address(new_id(), new_id(), new_id())
    token_events = [
        Delta(3, 0, "Old", 1),
        Delta(9, 4, "two ", 20),
        Delta(9, 0, "One ", 10),
        Progress(9, "generate", 0.5, 15),
        Delta(9, 0, "One two ", 30),
        Delta(3, 3, "er", 2),
        Delta(9, 8, "three", 40),
        Delta(9, 99, "beyond a gap", 50),
    ]
    seq = 0
    for token_event in token_events:
        seq = await bus.append(run.tokens, encode(token_event), expected=seq)

    latest = Written(9, "One two three", seq, 0.5, [(10, 4), (20, 8), (40, 13)], [(15, 500)])
    assert await read_attempt(bus, run) == latest
    assert await read_attempt(bus, run, 3) == Written(3, "Older", seq, 0.5, [(1, 3), (2, 5)], [])
    assert await read_attempt(bus, run, 5) == Written(5, "", seq, 0.5, [], [])
