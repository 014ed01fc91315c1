"""How a reply ended: one list of stop reasons, and a sentence where there is no text.

Servers have many words for the same few endings.  A word that is not in the list is
no ending: the provider gave up, and says so in its own way.
"""

_MEANINGS = {
    "end_turn": "stop eos eos_token eos_found end end_turn pause_turn complete completed finished",
    "max_tokens": (
        "length max_tokens max_output_tokens max_completion_tokens max_new_tokens max_length "
        "model_length token_limit model_context_window_exceeded context_length_exceeded"
    ),
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "content_filter": (
        "content_filter content_filtered safety sensitive recitation blocklist prohibited_content "
        "spii guardrail_intervened"
    ),
    "tool_calls": "tool_calls tool_call tool_use function_call",
}
_BY_WORD = {word: reason for reason, known in _MEANINGS.items() for word in known.split()}
_NOT_YET = {"", "null", "none"}
"""What some servers write while the reply goes on."""


def is_ending(word: str) -> bool:
    """Whether a server that gives this as the finish reason has one at all."""
    return word.lower() not in _NOT_YET


def stop_reason(word: str) -> str | None:
    """The stop reason that ``word`` means, one of those of ``RunEnded``; None: it is no ending."""
    return _BY_WORD.get(word.lower().replace("-", "_"))


def sentence(reason: str, *, thought: bool, tools: list[str], why: str) -> str | None:
    """What a reply without text says in its place; None: nothing is known that it could say."""
    if tools or reason == "tool_calls":
        named = f" ({', '.join(tools)})" if tools else ""
        return (
            f"The model asked for a tool{named} instead of answering. natterlog cannot run "
            "tools for it yet."
        )
    match reason:
        case "refusal":
            return f"The model refused to answer{f': {why}' if why else '.'}"
        case "content_filter":
            return "The provider's content filter held the answer back."
        case "max_tokens" if thought:
            return (
                "The model used all the tokens that it may use for thinking, before the first "
                "word of an answer. A higher limit of tokens, or less thinking, helps."
            )
        case "max_tokens":
            return (
                "The limit of tokens was reached before the first word of an answer. A higher "
                "limit, or a shorter conversation, helps."
            )
        case "stop_sequence":
            return "The answer ended at a stop sequence before its first word."
        case _ if thought:
            return "The model thought, and then ended without an answer."
        case _:
            return None
