"""Two texts word by word, and two runs number by number (pure)."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from services.cli.display.terminal import dollars, shortened, span
from shared.events import RunEnded
from shared.run_state import stop_reason

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
"""Splits a text into runs of spaces, words and single marks."""

_MODEL = 24
"""Characters of a model's name, so that the table fits."""

Kind = Literal["same", "gone", "new"]


class Piece(NamedTuple):
    """A stretch of text that is in both texts, or in one of them."""

    kind: Kind
    text: str


def word_diff(old: str, new: str) -> list[Piece]:
    """The pieces of two texts: all but the new ones are ``old``, all but the gone ones ``new``."""
    a, b = _WORD.findall(old), _WORD.findall(new)
    # in long texts no match begins at a space or at a word as common: that would take minutes
    matcher = SequenceMatcher(None, a, b, autojunk=True)
    return list(_joined(_pieces(matcher.get_opcodes(), a, b)))


def _pieces(
    codes: Sequence[tuple[str, int, int, int, int]], a: list[str], b: list[str]
) -> Iterator[Piece]:
    for code, i, j, k, m in codes:
        if code == "equal":
            yield Piece("same", "".join(a[i:j]))
            continue
        if i < j:
            yield Piece("gone", "".join(a[i:j]))
        if k < m:
            yield Piece("new", "".join(b[k:m]))


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join changes that only a space parts, so that three changed words are one change."""
    gone = new = ""
    for kind, text in pieces:
        if kind == "same" and (not text.isspace() or not (gone or new)):
            yield from _change(gone, new)
            gone = new = ""
            yield Piece("same", text)
            continue
        gone += text if kind != "new" else ""
        new += text if kind != "gone" else ""
    yield from _change(gone, new)


def _change(gone: str, new: str) -> Iterator[Piece]:
    if gone == new:
        if gone:
            yield Piece("same", gone)
        return
    if gone:
        yield Piece("gone", gone)
    if new:
        yield Piece("new", new)


def marked(pieces: list[Piece]) -> str:
    """The difference without colours: ``[-gone-]{+new+}``."""
    marks = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
    return "".join(marks[piece.kind].format(piece.text) for piece in pieces)


def differences(old: RunEnded, new: RunEnded) -> list[tuple[str, str, str, str]]:
    """Rows (name, old, new, difference) of two runs' numbers."""
    before, after = old.usage, new.usage
    return [
        ("status", old.status, new.status, ""),
        ("stop reason", _stop_reason(old), _stop_reason(new), ""),
        ("model", _model(old), _model(new), ""),
        _row(
            "input tokens",
            before and before.input_tokens,
            after and after.input_tokens,
        ),
        _row(
            "output tokens",
            before and before.output_tokens,
            after and after.output_tokens,
        ),
        _costs(old.cost, new.cost),
        _row("characters", old.length, new.length),
        _times("first text", old.first_delta_ms, new.first_delta_ms),
        _times("whole reply", old.latency_ms, new.latency_ms),
    ]


def _stop_reason(final: RunEnded) -> str:
    return stop_reason(final.status, final.stop_reason) or "–"


def _model(final: RunEnded) -> str:
    known = final.provider and final.model
    return shortened(f"{final.provider}/{final.model}", _MODEL) if known else "–"


def _row(what: str, old: int | None, new: int | None) -> tuple[str, str, str, str]:
    shown = ["–" if value is None else f"{value:,}" for value in (old, new)]
    by = "" if old is None or new is None else f"{new - old:+,}"
    return what, shown[0], shown[1], by


def _costs(old: int | None, new: int | None) -> tuple[str, str, str, str]:
    by = ""
    if old is not None and new is not None:
        by = f"{'+' if new >= old else ''}{dollars(new - old)}"
    return "cost", dollars(old), dollars(new), by


def _times(what: str, old: int | None, new: int | None) -> tuple[str, str, str, str]:
    by = ""
    if old is not None and new is not None:
        by = f"{'+' if new >= old else '−'}{span(abs(new - old))}"
    return what, span(old), span(new), by
