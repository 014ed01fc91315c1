"""The streams and what they promise; every service makes sure of them when it starts."""

import asyncio
from typing import Any

from shared.bus import ApiError, Bus
from shared.ids import new_id
from shared.subjects import EVENTS, EVERY_BREAKER, RATES, TOKENS

FILES = "OBJ_FILES"
BREAKERS = "KV_BREAKERS"
DEAD = "DEAD"
EPOCH = "natterlog-epoch"

_NOT_FOUND = 10059
_IN_USE = 10058
_NO_STORE = 10049
"""The server could not make the stream's files, as while somebody else makes the same ones."""
_TRIES = 5
_PAUSE = 0.2
_MINUTE = 60 * 1_000_000_000

STREAMS: dict[str, dict[str, Any]] = {
    # sync_interval: always is the server's setting, so a fact is on disk when it is acknowledged.
    EVENTS: {
        "subjects": ["evt.>", "sched.>"],
        "republish": {"src": "evt.>", "dest": "live.evt.>"},
        "allow_direct": True,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": False,
        "consumer_limits": {},
        "max_consumers": 100_000,
    },
    TOKENS: {
        "subjects": ["tok.>"],
        "republish": {"src": "tok.>", "dest": "live.tok.>"},
        "allow_direct": True,
        "persist_mode": "async",
        "max_age": 15 * _MINUTE,
        "max_bytes": 2 * 1024 * 1024 * 1024,
        "discard": "old",
    },
    # A counter: each message holds the total that it made, so what was counted since a
    # moment is a difference.  Lost ones let a few more through, so they need no fsync.
    RATES: {
        "subjects": ["rate.>"],
        "allow_direct": True,
        "allow_msg_counter": True,
        "persist_mode": "async",
        "max_age": 2 * _MINUTE,
    },
    FILES: {
        "subjects": ["$O.FILES.C.>", "$O.FILES.M.>"],
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "discard": "new",
    },
    # A circuit a model, and models are named by whoever likes: the oldest are forgotten.
    BREAKERS: {
        "subjects": [EVERY_BREAKER],
        "max_msgs_per_subject": 1,
        "max_msgs": 10_000,
        "max_age": 24 * 60 * _MINUTE,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "discard": "old",
    },
    DEAD: {"subjects": ["dead.>"], "max_age": 30 * 24 * 60 * _MINUTE, "allow_direct": True},
}


async def ensure_streams(bus: Bus) -> str:
    """Create what is missing and answer the log's epoch: the id of this incarnation of EVENTS.

    Raises:
        ApiError, NoAnswer: JetStream is not there, or refuses.
    """
    infos = {name: await _ensure(bus, name, config) for name, config in STREAMS.items()}
    return infos[EVENTS]["config"]["metadata"][EPOCH]


async def _ensure(bus: Bus, name: str, config: dict[str, Any]) -> dict[str, Any]:
    try:
        return await bus.api(f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.err_code != _NOT_FOUND:
            raise
    wanted = config | {
        "name": name,
        "storage": "file",
        "retention": "limits",
        "num_replicas": 1,
        "metadata": {EPOCH: new_id()},
    }
    for tries_left in reversed(range(_TRIES)):
        try:
            return await bus.api(f"STREAM.CREATE.{name}", wanted)
        except ApiError as error:
            if error.err_code == _IN_USE:  # another service was faster
                break
            if error.err_code != _NO_STORE or not tries_left:  # or it is just at it
                raise
        await asyncio.sleep(_PAUSE)
    return await bus.api(f"STREAM.INFO.{name}")
