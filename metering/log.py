"""Logging: one line an event, readable on a terminal, JSON elsewhere, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

from metering.config import Settings
from schemas.errors import SettingError

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SECRET_NAMES: Final = ("password", "secret", "token", "pepper", "api_key", "authorization")
_LOUD_LIBRARIES: Final = ("aiokafka", "faust", "mode", "abc", "urllib3", "httpx", "httpcore", "clickhouse_connect")


class _StandardError:
    """Standard error as it is when a line is written: whoever replaces it later is followed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(settings: Settings) -> None:
    """Set up structlog and the standard library's loggers once, at the start of a process."""
    if settings.log_level not in LEVELS:
        raise SettingError(
            f"{settings.log_level!r} is no log level", where="METERING_LOG_LEVEL", fix=f"Use one of {', '.join(LEVELS)}"
        )
    level = LEVELS[settings.log_level]
    standard_error = cast("TextIO", _StandardError())
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hide_secrets,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(standard_error),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=level, stream=standard_error, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in _LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.ERROR if level > logging.DEBUG else logging.INFO))


def _hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Whatever is called a secret stays one, should anybody ever log it."""
    for name in event:
        if any(secret in name.lower() for secret in _SECRET_NAMES):
            event[name] = "…"
    return event
