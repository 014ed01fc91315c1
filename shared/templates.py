"""Prompts from templates: ``{name}`` stands for a value, and other braces for themselves.

Values are put in once, in one go, so that nothing in a value is ever taken for a
name.  Text that was not written by whoever asks, such as a file's, is fenced: it
cannot close a fence that is longer than any of its own.
"""

import re
from collections.abc import Mapping

_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_TICKS = re.compile(r"`+")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its values; a name without a value stays as it is."""
    return _NAME.sub(lambda found: values.get(found[1], found[0]), template)


def names_in(template: str) -> set[str]:
    """The names that a template asks for."""
    return set(_NAME.findall(template))


def fence(text: str, name: str) -> str:
    """``text`` as a fenced block called ``name``."""
    longest = max((len(marks) for marks in _TICKS.findall(text)), default=0)
    marks = "`" * max(longest + 1, 3)
    return f"{marks}{name}\n{text}\n{marks}"


def quoted(name: str) -> str:
    """A file's name on one line, as something quoted."""
    return f"“{' '.join(name.split()).replace('”', '')}”"
