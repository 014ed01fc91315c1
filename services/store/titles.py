"""What a session is called whose owner gave it no name."""

MOST = 60
"""Characters of a title that is made."""


def title_of(message: str) -> str | None:
    """The first line of a message that says something, cut between words; None: there is none."""
    line = next((line for line in message.splitlines() if line.strip()), "")
    text = " ".join(line.split())
    if len(text) <= MOST:
        return text or None
    cut = text[: MOST - 1]
    between = cut.rfind(" ")
    if between > MOST // 2:  # a language without spaces is cut where the room ends
        cut = cut[:between]
    return f"{cut.rstrip(' ,;:.-–—')}…"
