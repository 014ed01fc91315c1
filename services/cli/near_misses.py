"""What somebody probably meant: commands and settings that are written almost right."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from shared.settings import VARIABLES

PREFIX = "NATTERLOG_"

NOT_OURS = frozenset(
    {
        *("NATTERLOG_READY_FD", "NATTERLOG_LIFELINE_FD"),  # the supervisor's, for its children
        *("NATTERLOG_URL", "NATTERLOG_TOKEN"),  # the examples'
        "NATTERLOG_NATS_PASSWORD",  # compose.yaml's
    }
)
"""Variables that begin like settings and are none."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names what is nearest to ``name``; nothing where nothing is near.

    What all settings begin with makes none of them more alike.
    """
    by_end = {each.removeprefix(PREFIX): each for each in known}
    near = get_close_matches(name.removeprefix(PREFIX), by_end, n=1)
    return f" Did you mean {by_end[near[0]]}?" if near else ""


def unknown_settings(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that looks like a setting of natterlog's and is none."""
    return [
        f"{name} is no setting, and changes nothing.{did_you_mean(name, VARIABLES)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in VARIABLES and name not in NOT_OURS
    ]
