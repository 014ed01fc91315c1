"""Structured logs: ids and sizes, never people's words, never tokens."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from shared.settings import Settings

get_logger = structlog.stdlib.get_logger

_log = get_logger()


class RepeatedWarning:
    """A warning that may come again and again: a new one is logged at once, the same ever less."""

    FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._repeated: dict[str, _Repeated] = {}

    def log(self, error: str) -> None:
        """Log the error, or only count it while it was logged a moment ago."""
        now = self._clock()
        self._drop_old(now)
        known = self._repeated.get(error)
        if known is None:
            self._repeated[error] = _Repeated(due=now + self.FIRST_PAUSE, pause=self.FIRST_PAUSE)
            _log.warning(self._event, error=error)
            return
        known.count += 1
        if now >= known.due:
            _log.warning(self._event, error=error, repeats=known.count)
            known.pause = min(known.pause * 2, self.LONGEST_PAUSE)
            known.due, known.count = now + known.pause, 0

    def _drop_old(self, now: float) -> None:
        oldest = now - self.LONGEST_PAUSE
        self._repeated = {e: known for e, known in self._repeated.items() if known.due > oldest}

    def forget(self) -> None:
        """What comes after this is new."""
        self._repeated.clear()


@dataclass
class _Repeated:
    """How often an error came since it was logged, and when it is logged again."""

    due: float
    pause: float
    count: int = 0


def configure(settings: Settings, *, service: str) -> None:
    """Send every log line of this process to standard error, as JSON or for a terminal."""
    for_people = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    renderer = (
        structlog.dev.ConsoleRenderer() if for_people else structlog.processors.JSONRenderer()
    )
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.getLogger("aiohttp.server").addFilter(_without_what_was_sent)
    structlog.contextvars.bind_contextvars(service=service)


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    """What aiohttp cannot parse is a client's fault; its error quotes it, tokens and all."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    record.levelno, record.levelname = logging.INFO, "INFO"
    record.msg, record.args, record.exc_info = "http.unreadable_request", (), None
    return logging.getLogger().isEnabledFor(logging.INFO)
