"""Structured logs: ids and sizes, never people's words, never tokens."""

import logging
import sys

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from shared.settings import Settings

get_logger = structlog.stdlib.get_logger


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
