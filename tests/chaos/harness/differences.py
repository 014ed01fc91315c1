"""In what way a text is wrong: lost, doubled or spliced characters (pure)."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Kind = Literal["lost", "doubled", "spliced", "wrong"]
_FEW = 4
_AROUND = 24
"""Characters that are shown on each side of where two texts part."""


class Difference(NamedTuple):
    """What is wrong with a text, and where."""

    kind: Kind
    detail: str


def difference(held: str, truth: str, others: Iterable[str] = ()) -> Difference | None:
    """What is wrong with ``held``; None where it is ``truth``.

    ``others`` are texts of which a part may have been spliced in.
    """
    if held == truth:
        return None
    start = common_prefix(held, truth)
    end = common_prefix(held[start:][::-1], truth[start:][::-1])
    extra, missing = held[start : len(held) - end], truth[start : len(truth) - end]
    where = f"at {start}: {_around(held, start)!r} where {_around(truth, start)!r} was due"
    if not extra:
        return Difference("lost", f"{len(missing)} characters {where}")
    if _is_of_another(held, start, len(extra), others):
        return Difference("spliced", f"{len(extra)} characters {where}")
    if not missing and _is_repetition(extra, held[:start], truth[start:]):
        return Difference("doubled", f"{len(extra)} characters {where}")
    return Difference("wrong", f"{len(extra)} characters for {len(missing)} {where}")


def common_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _is_repetition(extra: str, before: str, after: str) -> bool:
    """Whether the extra characters are those that stand on one side of them."""
    return before.endswith(extra) or after.startswith(extra) or before.startswith(extra)


def _is_of_another(held: str, start: int, length: int, others: Iterable[str]) -> bool:
    """Whether what is wrong stands in another text; a few characters with what is around them."""
    if length < _FEW:
        start, length = max(0, start - 1), _FEW + 1
    piece = held[start : start + min(length, _AROUND)]
    return any(piece in other for other in others)


def _around(text: str, at: int) -> str:
    return text[max(0, at - _AROUND) : at + _AROUND]
